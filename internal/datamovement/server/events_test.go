package server

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

func TestEvents(t *testing.T) {
	seen := make(map[string]string)
	for _, e := range append(daemon.Events(), Events()...) {
		if !e.Valid() {
			t.Errorf("%+v is not valid", e)
		}
		for _, key := range []string{e.ID, e.Name} {
			if seen[key] != "" {
				t.Errorf("%s: %s and %s", key, seen[key], e.Name)
			}
			seen[key] = e.Name
		}
	}
}
