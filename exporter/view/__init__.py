"""Shows models in Netron, for the browser of this machine only.

Netron's own server hands out every file of the model's folder, to any `Host`, reads files whole into memory and
cannot open names that hold `"`, `#`, `?`, `%` or `<`; its page calls a geolocation and an analytics service. Here the
page and scripts of the installed package are served beside the chosen files, streamed, and the browser is told to talk
to nobody else.
"""
