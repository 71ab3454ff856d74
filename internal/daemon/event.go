package daemon

import "log/slog"

// Event is a kind of log record that administrators can select by: with
// `journalctl MESSAGE_ID=…` in the journal, by event=name everywhere else. The
// ID also keys the explanation in the journal's message catalogue, so an ID
// must never change or be given a second meaning.
type Event struct {
	ID   string // 32 lower-case hexadecimal digits, as `systemd-id128 new` prints
	Name string // what other log formats show: lower case, words joined by '-'
}

// EventID is the attribute that marks a record as one of kind e.
func EventID(e Event) slog.Attr { return slog.Any(eventKey, e) }

const eventKey = "event"

// LogValue shows the name: handlers that know nothing of Event print event=name.
func (e Event) LogValue() slog.Value { return slog.StringValue(e.Name) }

// Valid reports whether the journal would accept the ID.
func (e Event) Valid() bool {
	if len(e.ID) != 32 || e.Name == "" {
		return false
	}
	for _, c := range []byte(e.ID) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// The events that this package logs itself.
var (
	EventStopping    = Event{ID: "393a4bf9e873460d80aa6dbd15bb4801", Name: "stopping"}
	EventStopped     = Event{ID: "5e2a089cdedf4707a9e6c01eb8824386", Name: "stopped"}
	EventStopForced  = Event{ID: "0bc93dadb49d419297883c74543d0abb", Name: "stop-forced"}
	EventReload      = Event{ID: "7a571ca2ac9a49e88990eacf2eb7b47a", Name: "reload"}
	EventPanic       = Event{ID: "a0efbdb028df4dbca7f7ca7e847b984f", Name: "panic"}
	EventLoopStuck   = Event{ID: "f1952051c94d434f96be569816be0981", Name: "loop-stuck"}
	EventLoopAnswers = Event{ID: "a0646f3fc4db48199b73f7c8e659bdc9", Name: "loop-answers"}
)

// Events lists them, for the test that keeps the message catalogue complete.
func Events() []Event {
	return []Event{EventStopping, EventStopped, EventStopForced, EventReload, EventPanic, EventLoopStuck, EventLoopAnswers}
}
