"""The repeating task of the demo: `heartbeat`, every minute."""

from django.db import migrations

from cq.models import schedule_task
from picture.tasks import heartbeat


def schedule(apps, schema_editor):
    # Running this twice changes nothing: the entry is known by its function and its crontab.
    schedule_task(
        apps.get_model("cq", "RepeatingTask"),
        "* * * * *",
        heartbeat,
        using=schema_editor.connection.alias,
    )


def unschedule(apps, schema_editor):
    entries = apps.get_model("cq", "RepeatingTask").objects.using(schema_editor.connection.alias)
    entries.filter(func_name=heartbeat.name).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("picture", "0001_pictures"),
        ("cq", "__first__"),
    ]

    operations = [migrations.RunPython(schedule, unschedule)]
