"""What the HTML reports share: the page around them, its style and script, and the shapes of bars.

A report is a folder of templates of its own (``report.html.j2``, ``report.css`` and, where a hand
is needed, ``report.js``) that `slant.page.render` puts together with ``templates/`` here.
"""
