"""A bounded waiting line in front of one place to work at."""

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Ticket:
    """A position in a waiting line; it is kept until `leave`."""

    line: "WaitingLine"

    @property
    def ahead(self) -> int:
        """How many are ahead; 0 means it is this one's turn, or that it has left."""
        tickets = self.line.tickets
        return tickets.index(self) if self in tickets else 0

    def leave(self) -> None:
        """Give the position up; the others move on. Leaving twice changes nothing."""
        if self in self.line.tickets:
            self.line.tickets.remove(self)


@dataclass(slots=True, eq=False)
class WaitingLine:
    """First come, first served; to be used from one thread (an event loop's).

    Attributes:
        seats: How many may wait beside the one who is served.
        tickets: Who is served and who waits, in order.
    """

    seats: int
    tickets: list[Ticket] = field(default_factory=list)

    def enter(self) -> Ticket | None:
        """Return a ticket, or `None` if every seat is taken."""
        if len(self.tickets) > self.seats:
            return None
        ticket = Ticket(self)
        self.tickets.append(ticket)
        return ticket
