from django.contrib import admin
from django.urls import path

urlpatterns = [path("backstage/", admin.site.urls)]
