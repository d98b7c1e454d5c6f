# SPDX-License-Identifier: GPL-3.0-or-later
"""A media service in small: what it does to its MEDIA_ROOT is Django's own code."""
import os

SECRET_KEY = "tests only"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_app.urls"
INSTALLED_APPS = ["django_app"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["APP_DB"],
                         "OPTIONS": {"timeout": 20}}}
MEDIA_ROOT = os.environ["APP_MEDIA"]
if os.environ.get("APP_TEMP"):
    FILE_UPLOAD_TEMP_DIR = os.environ["APP_TEMP"]
USE_TZ = True
