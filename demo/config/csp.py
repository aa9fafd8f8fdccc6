"""
The Content-Security-Policy of every answer.

Everything comes from this server, and nothing is inline: no script, no style, no handler.
Django has a middleware for this from 6.0 on; these lines also serve 5.2.
"""

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class ContentSecurityPolicy(MiddlewareMixin):
    """
    Add the policy to whatever the view answers.

    At home on a loop as well: under one that is not, a request that waits for another thread
    when the server ends is never answered, and keeps the process from its end.
    """

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Set the header."""
        response.headers["Content-Security-Policy"] = POLICY
        return response
