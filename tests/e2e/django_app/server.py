# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m django_app.server init`: make the database."""
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_app.settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()

if sys.argv[1:] == ["init"]:
    from django.db import connection

    from django_app.models import Media, Photo
    with connection.schema_editor() as editor:
        editor.create_model(Media)
        editor.create_model(Photo)
