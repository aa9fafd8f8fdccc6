"""The one form of the demo: a picture of one's own, or one of the demo's."""

from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from PIL import Image

from picture import uploads


def samples() -> list[str]:
    """Return the names of the pictures that the demo brings along."""
    return sorted(path.stem for path in Path(settings.SAMPLES).glob("*.jpg"))


class PictureForm(forms.Form):
    """Take an upload or a sample; `picture` and `name` are there when it is valid."""

    upload = forms.FileField(required=False, allow_empty_file=True)
    sample = forms.CharField(required=False)
    torn = forms.BooleanField(required=False)

    picture: Image.Image
    name: str

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        upload, sample = cleaned.get("upload"), cleaned.get("sample")
        try:
            if upload:
                self.name = upload.name[-120:]
                self.picture = uploads.open_picture(upload, self.name, upload.size)
            elif sample in samples():
                self.name = sample.capitalize()
                self.picture = uploads.open_sample(Path(settings.SAMPLES) / f"{sample}.jpg")
            else:
                raise uploads.UnusablePicture(
                    "No picture was chosen: pick a JPEG, PNG or WebP file, or one of those below."
                )
        except uploads.UnusablePicture as refusal:
            raise forms.ValidationError(str(refusal)) from refusal
        return cleaned
