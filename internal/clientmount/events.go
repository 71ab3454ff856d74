package clientmount

import "github.com/compute-daemons/compute-daemons/internal/daemon"

// The kinds of journal records, by their stable MESSAGE_ID. An id is never
// given to another meaning: sites search and alert by it.
var (
	EventStarted       = daemon.Event{ID: "6b1c3d5e7f904a2b8c4d6e8f0a1b3c17", Name: "started"}
	EventConfigRefused = daemon.Event{ID: "92a4b6c8d0e14f3a8b5c7d9e1f2a4b18", Name: "config-refused"}
	EventNamespace     = daemon.Event{ID: "bc1d37a0c5a84f7f8245030973b3a97d", Name: "mount-namespace"}

	eventReady     = daemon.Event{ID: "3f1b52c94d7a4e0fb3a86c1de9f2075a", Name: "ready"}
	eventMounted   = daemon.Event{ID: "8f0e6d0b5f0e4c0c9d1d1c1f4f3f6a01", Name: "mounted"}
	eventUnmounted = daemon.Event{ID: "5b7a4f0d3f8e4a5e8a1f6b2c7d9e0a02", Name: "unmounted"}
	eventFailed    = daemon.Event{ID: "c1d2f7a86a3b4f0fb4f5a9e3d6c80b03", Name: "failed"}
	eventBusy      = daemon.Event{ID: "2e9c7b1fd0a54c4d8f3e6a7b9c0d1e04", Name: "busy"}
	eventRefused   = daemon.Event{ID: "7d3a5e9b8c1f4d2ea6b0c9f8e7d6a505", Name: "refused"}
	eventOrphan    = daemon.Event{ID: "a4b8c2d6e0f14a3b8c7d9e5f1a2b3c06", Name: "orphan"}
	eventStuck     = daemon.Event{ID: "f1e2d3c4b5a64978867a5b4c3d2e1f07", Name: "stuck"}
	eventHook      = daemon.Event{ID: "3c5e7a9b1d2f4e6a8b0c2d4e6f8a0b08", Name: "hook"}
	eventStep      = daemon.Event{ID: "9a8b7c6d5e4f4a3b9c1d0e2f3a4b5c09", Name: "step"}
	eventRescan    = daemon.Event{ID: "6f5e4d3c2b1a4f0e9d8c7b6a5f4e3d10", Name: "rescan"}
	eventDiagnosis = daemon.Event{ID: "b0c1d2e3f4a54b6c8d7e9f0a1b2c3d11", Name: "diagnosis"}
	eventLeftover  = daemon.Event{ID: "d4c3b2a1f0e94d8c9b7a6f5e4d3c2b12", Name: "leftover"}
	eventRecord    = daemon.Event{ID: "1a2b3c4d5e6f4a7b8c9d0e1f2a3b4c13", Name: "record"}
	eventAPI       = daemon.Event{ID: "e7f6a5b4c3d24e1f8a9b0c7d6e5f4a14", Name: "api"}
	eventPanic     = daemon.Event{ID: "0f1e2d3c4b5a4697887a6b5c4d3e2f15", Name: "panic"}
	eventServers   = daemon.Event{ID: "4d5e6f7a8b9c4d0e9f1a2b3c4d5e6f16", Name: "servers"}
)

// Events lists them, for the tests that keep the documentation and the message
// catalogue complete.
func Events() []daemon.Event {
	return []daemon.Event{
		EventStarted, EventConfigRefused, EventNamespace,
		eventReady, eventMounted, eventUnmounted, eventFailed, eventBusy, eventRefused, eventOrphan, eventStuck, eventHook,
		eventStep, eventRescan, eventDiagnosis, eventLeftover, eventRecord, eventAPI, eventPanic, eventServers,
	}
}
