"""A generation: all that a worker is forked from. Runs in the master; a reload makes a new one."""

from __future__ import annotations

from attrs import frozen

from linepool.app import App
from linepool.service import Service
from linepool.settings import Settings


@frozen
class Generation:
    """One load of the app, and the settings in force.

    Attributes:
        number: Counts the loads; the first is 1.
        service: The app, made ready to serve.
    """

    number: int
    app: App
    service: Service
    settings: Settings
