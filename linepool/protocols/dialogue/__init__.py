"""Dialogues of commands and coded replies, such as SMTP and POP3."""

from linepool.protocols.dialogue.protocol import Dialogue

__all__ = ["Dialogue"]
