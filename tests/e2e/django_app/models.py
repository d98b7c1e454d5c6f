# SPDX-License-Identifier: GPL-3.0-or-later
from django.db import models


def place(instance, name):
    return f"circles/{instance.circle}/keeps/{instance.keep}/{name}"


class Media(models.Model):
    circle = models.CharField(max_length=40)
    keep = models.CharField(max_length=40)
    file = models.FileField(upload_to=place, max_length=255)


class Photo(models.Model):
    circle = models.CharField(max_length=40)
    keep = models.CharField(max_length=40)
    width = models.IntegerField(default=0)
    height = models.IntegerField(default=0)
    file = models.ImageField(upload_to=place, max_length=255, width_field="width", height_field="height")
