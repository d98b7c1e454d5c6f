# SPDX-License-Identifier: GPL-3.0-or-later
from django.core.files.storage import default_storage
from django.http import FileResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_app.models import Media, Photo


@csrf_exempt
def upload(request):
    model = Photo if request.POST.get("photo") else Media
    item = model(circle=request.POST["circle"], keep=request.POST["keep"])
    item.file = request.FILES["file"]
    kind = type(request.FILES["file"]).__name__
    item.save()
    return JsonResponse({"id": item.pk, "name": item.file.name, "size": item.file.size, "via": kind,
                         "width": getattr(item, "width", None), "height": getattr(item, "height", None)})


def download(request, pk):
    return FileResponse(Media.objects.get(pk=pk).file.open("rb"))


@csrf_exempt
def delete(request, pk):
    item = Media.objects.get(pk=pk)
    item.file.delete(save=False)
    item.delete()
    return JsonResponse({})


@csrf_exempt
def delete_path(request):
    default_storage.delete(request.POST["path"])        # a directory too
    return JsonResponse({})


def listing(request):
    folders, files = default_storage.listdir(request.GET["path"])
    return JsonResponse({"folders": sorted(folders), "files": sorted(files)})


def facts(request):
    name = request.GET["path"]
    return JsonResponse({"size": default_storage.size(name),
                         "created": default_storage.get_created_time(name).timestamp(),
                         "modified": default_storage.get_modified_time(name).timestamp(),
                         "exists": default_storage.exists(name)})


def ready(request):
    return JsonResponse({})


urlpatterns = [path("upload", upload), path("download/<int:pk>", download), path("delete/<int:pk>", delete),
               path("delete-path", delete_path), path("list", listing), path("facts", facts),
               path("ready", ready)]
