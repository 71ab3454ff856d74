package server

import "github.com/compute-daemons/compute-daemons/internal/daemon"

// The kinds of journal records, by their stable MESSAGE_ID. An id is never given
// to another meaning: sites search and alert by it.
var (
	EventStarted       = daemon.Event{ID: "2d6f0c1b8a7e4f52b93c5d1e60a74f21", Name: "dm-started"}
	EventConfigRefused = daemon.Event{ID: "c85b1e0f4a3d4c6e9f72a1b8d5e36c22", Name: "dm-config-refused"}
	EventIdle          = daemon.Event{ID: "71a9e3c5d20b4f8d8e6c4b7a9f013d23", Name: "dm-idle"}

	eventRefused    = daemon.Event{ID: "e40c7d92b1a6453f8c5e2f9d7b306a24", Name: "dm-refused"}
	eventCreated    = daemon.Event{ID: "18f5b6a3c9d7402eb4e1d8c6f2a57925", Name: "dm-created"}
	eventEnded      = daemon.Event{ID: "5c2e8f7d1b0a4936a7d4c3e9b8f16026", Name: "dm-ended-by-user"}
	eventAPI        = daemon.Event{ID: "9b7d4e6f0c3a45128f1e5a2c7d9b8e27", Name: "dm-api"}
	eventFollow     = daemon.Event{ID: "f36a1c8e5d7b4290a8c6e0d4f9b27128", Name: "dm-follow"}
	eventSuppressed = daemon.Event{ID: "6e1c9f4a7b2d4c358a0e5d3f8b6c7131", Name: "dm-suppressed"}
	eventRPCPanic   = daemon.Event{ID: "0a4d9e7c2f5b48618d3e6b1f7c9a0529", Name: "dm-panic"}
)

// Events lists them, for the tests that keep the documentation and the message
// catalogue complete.
func Events() []daemon.Event {
	return []daemon.Event{
		EventStarted, EventConfigRefused, EventIdle,
		eventRefused, eventCreated, eventEnded, eventAPI, eventFollow, eventSuppressed, eventRPCPanic,
	}
}
