package offload

import (
	"strings"
	"testing"
)

// rows are the requirements of nnf-dm, by section and row of its contract. Section 9 has the
// improvements over the daemon that it replaces.
var rows = []struct{ id, text string }{
	{"4.1", "Version: the build's, and API version 1"},
	{"4.2/1", "the workflow exists"},
	{"4.2/2", "it is in state PreRun with status Completed"},
	{"4.2/3", "the source is in a mount of this compute"},
	{"4.2/4", "of type lustre or gfs2"},
	{"4.2/5", "source and destination can be mapped"},
	{"4.2/6", "the caller's identity"},
	{"4.2/7", "the profile"},
	{"4.2/8", "the object can be created"},
	{"4.2/ok", "success: the uid is the object's name"},
	{"4.2.1/best", "the mount of the source"},
	{"4.2.1/reference", "without device reference"},
	{"4.2.1/state", "state of the ClientMount"},
	{"4.2.2/same", "the mount of the same storage on the rabbit"},
	{"4.2.2/nomatch", "no such mount"},
	{"4.2.2/example1", "…/a/b"},
	{"4.2.2/example2", "…/a/, the slash is kept"},
	{"4.2.2/example3", "the directory itself"},
	{"4.2.2/example4", "its contents"},
	{"4.2.2/example5", "the path of a sibling does not match"},
	{"4.2.2/example6", ".. does not leave the mount"},
	{"4.2.3/label", "lustre needs the directive's label"},
	{"4.2.3/absolute", "destinations are absolute"},
	{"4.2.3/match", "and in a LustreFileSystem"},
	{"4.2.3/none", "of which there is at least one"},
	{"4.2.3/object", "the object is in nnf-dm-system"},
	{"4.2.4", "gfs2: in the rabbit's namespace, no storage reference of the destination"},
	{"4.2.5/default", "the only default profile"},
	{"4.2.5/none", "none"},
	{"4.2.5/several", "several"},
	{"4.2.5/named", "a named one must exist"},
	{"4.2.5/pinned", "pinned copies are not used"},
	{"4.2.6", "the exact object"},
	{"4.3", "the namespace of an object, by the prefix of its uid"},
	{"4.4/1", "Status of a missing movement"},
	{"4.4/2", "the wait"},
	{"4.4/3", "only PENDING"},
	{"4.4/4", "the mapping of states and results"},
	{"4.4/5", "message, command, times"},
	{"4.5/missing", "Cancel of a missing movement"},
	{"4.5/sets", "sets spec.cancel"},
	{"4.5/again", "repeated, or after the end: success"},
	{"4.5/conflict", "conflicts"},
	{"4.6/missing", "Delete of a missing movement"},
	{"4.6/active", "of an active movement"},
	{"4.6/success", "of an ended movement"},
	{"4.7", "List"},
	{"5/version", "simulated Version"},
	{"5/create", "Create: a random UUID"},
	{"5/status-invalid", "Status of an invalid UUID"},
	{"5/status-unknown", "of an unknown UUID"},
	{"5/status-first", "the first time"},
	{"5/status-later", "later"},
	{"5/status-cancelled", "after Cancel"},
	{"5/cancel", "Cancel"},
	{"5/delete", "Delete"},
	{"5/list", "List"},
	{"7/finalizer", "first reconcile: a finalizer and no status"},
	{"7/running", "preparation ok"},
	{"7/starting", "Starting"},
	{"7/progress", "progress while running"},
	{"7/success", "end, exit 0"},
	{"7/failure", "end, failure"},
	{"7/cancel-running", "cancel while running"},
	{"7/cancel-before", "cancel before start"},
	{"7/delete-before", "delete before start"},
	{"7/invalid", "preparation error, not Minor"},
	{"7/minor", "preparation error, Minor"},
	{"7/restart", "the rabbit restarts the copy"},
	{"8/client-go", "the Go client"},
	{"8/client-py", "the Python client"},
	{"8/client-cpp", "the C++ client"},
	{"8/lib-cpp", "libnnfdm"},
	{"8/c", "the C client"},
	{"8/axl", "AXL"},
	{"9.1", "no injection into the rabbit's shell"},
	{"9.2", "authorisation"},
	{"9.3", "the workflow's user and group"},
	{"9.4", "no crash because of missing fields"},
	{"9.5", "the longest mount, compared by components"},
	{"9.6", "clean paths"},
	{"9.7", "destinations of both types, the longest root"},
	{"9.8", "variables in mount paths"},
	{"9.9", "the end of lustre movements is noticed"},
	{"9.10", "the end of invalid movements is noticed"},
	{"9.11", "waits end with their callers, and are limited"},
	{"9.12", "a server-side label selector"},
	{"9.13", "cancel before start"},
	{"9.14", "cancel, then delete"},
	{"9.15", "directive index and job id on both"},
	{"9.16", "the node's short name"},
	{"9.17", "starts without a rabbit; external computes; recabling"},
	{"9.18", "Lustre servers on other rabbits"},
	{"9.19", "only mounted storage"},
	{"9.20", "the socket file"},
	{"9.21", "limits, and few requests"},
	{"9.22", "the daemon exits if serving fails"},
	{"9.23", "graceful stop"},
	{"9.24", "codes for errors of the API server"},
	{"9.25", "List by kind, namespace and initiator"},
	{"9.26", "could not find workflow"},
	{"9.27", "corrections in the simulated service"},
	{"9.28", "rate flags in every credential mode"},
	{"9.29", "slots"},
	{"9.30", "unknown states"},
	{"9.31", "repeated requests, disconnected callers"},
	{"v2/CreateBatch", "many movements with one handle"},
	{"v2/Watch", "each change as it happens"},
	{"v2/Wait", "until all have ended"},
	{"v2/Describe", "what the caller can copy"},
	{"v2/errors", "typed errors"},
	{"access/reflection", "for root only"},
	{"access/health", "the health service"},
	{"access/rbac", "the permissions of an installation are sufficient"},
}

// elsewhere has rows, or parts of rows, that unit tests cover: the directory and the name of
// the test. TestNamedTestsExist in internal/e2e/manual checks that they exist.
var elsewhere = map[string][]string{
	"9.4":  {"internal/datamovement/server TestInterceptor"}, // a panic is recovered
	"9.20": {"internal/unixsocket TestOneOfManyProcesses", "internal/unixsocket TestModeBeforeListening", "internal/unixsocket TestActivation"},
	"9.22": {"internal/datamovement/server TestServeFails"},
}

// TestRows checks that every row has a test or a unit test, and that every test refers to
// existing rows.
func TestRows(t *testing.T) {
	known := map[string]int{}
	for _, r := range rows {
		if _, twice := known[r.id]; twice || r.text == "" {
			t.Errorf("row %s is a duplicate or has no text", r.id)
		}
		known[r.id] = 0
	}
	names := map[string]bool{}
	for _, a := range groups {
		for _, p := range a.behaviours {
			if names[p.name] || p.test == nil || len(p.kinds) == 0 || p.rows == "" {
				t.Errorf("%q is a duplicate, or has no kinds, rows or test", p.name)
			}
			names[p.name] = true
			for _, id := range strings.Fields(p.rows) {
				if _, ok := known[id]; !ok {
					t.Errorf("%q refers to row %s, which does not exist", p.name, id)
				}
				known[id]++
			}
		}
	}
	for id, tests := range elsewhere {
		if _, ok := known[id]; !ok {
			t.Errorf("row %s does not exist", id)
		}
		known[id] += len(tests)
	}
	for _, r := range rows {
		if known[r.id] == 0 {
			t.Errorf("row %s, %s: no test", r.id, r.text)
		}
	}
}
