"""The demo: a rendered data set in SSv2's format, and the user's own steps run on it.

The room sits above extract and fusion, beside the commands, and nothing imports it but `tca demo`.
`textures`, `scenes`, `motions`, `painter` and `render` make the data set; `demo` runs the steps
with `settings`; `one_frame` checks that motion earned the score; `report`, `page`, `charts`
and `strips` tell what came out.
"""
