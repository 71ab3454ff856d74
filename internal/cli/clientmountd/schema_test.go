package clientmountd

import (
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// The documents match their schemas: with all states, of an empty node, and without a result.
func TestSchemas(t *testing.T) {
	doc := nodeOfMounts()
	replaced(t, func(string) (*mountstate.Mounts, error) { return doc, nil })
	check := func(command string, code int) {
		t.Helper()
		got, out, errs := run(command, "--config=/dev/null", "-o", "json")
		if schema.Check(t, "clientmountd-"+command, []byte(out)); got != code {
			t.Errorf("%s: exit code %d, want %d: %s", command, got, code, errs)
		}
	}
	check("mounts", 0)
	check("health", 1)
	*doc = mountstate.Mounts{Version: mountstate.MountsVersion, Mounts: []mountstate.Mount{}, Daemon: mountstate.Daemon{API: mountstate.APIUnknown}, Unreadable: []string{"x"}}
	check("mounts", 1)
	check("health", 1)
	read = func(string) (*mountstate.Mounts, error) { return nil, os.ErrPermission }
	check("health", ExitUnknown)
}
