"""The phrase–box link editor: a store of records, a journal of edits beside it, one page.

    changes.py twins.py follow.py     what can be changed, as functions: record -> record
    history.py journal.py             undone and redone; kept on disk edit by edit
    lines.py catalogue.py differ.py   the store: by number, listed by rule, held against another
    session.py merge.py pending.py    all of it for one store; the store written anew by command
    app.py shown.py guard.py served.py   the page and its API, for this machine alone
    assets/                           the page: plain modules, no build

No torch, and nothing is ever written into the store while it is edited.
"""
