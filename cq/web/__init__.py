"""
What a browser reaches: the socket, the polling endpoint, the task page.

Everybody here is a reader of the rows; the only writes are the actions of
`workflow/revoke` and `workflow/retry`, after the reader's right to them was checked.
"""
