package deploy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
)

// virtualServer is an API server in memory, whose delays pass in virtual time. It replaces the network:
// everything above is the real code. The suites with a real API server test what a server accepts; this
// one is for many nodes, failures and interruptions.
type virtualServer struct {
	read, write time.Duration
	fault       func(n int) *http.Response // for the request with this number, nil: none
	down        func() bool
	late        time.Duration // from the creation of a policy until it is used

	mu       sync.Mutex
	objects  map[string]map[string]any // by path
	policies map[string]time.Time      // when the policies were created
	requests int
	open     int
	most     int // the largest number of requests at the same time
	log      []virtualRequest
	uid      int
}

type virtualRequest struct {
	at           time.Time
	method, path string
}

func newVirtualServer() *virtualServer {
	return &virtualServer{read: 3 * time.Millisecond, write: 12 * time.Millisecond, late: 300 * time.Millisecond, objects: map[string]map[string]any{}, policies: map[string]time.Time{}}
}

func respond(code int, body any) *http.Response {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(data)), ContentLength: int64(len(data))}
}

func refuse(code int, reason, message string, details map[string]any) *http.Response {
	return respond(code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details})
}

var errRefused = &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}

// RoundTrip implements http.RoundTripper.
func (s *virtualServer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	s.mu.Lock()
	s.requests++
	n := s.requests
	s.open++
	s.most = max(s.most, s.open)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.open--; s.mu.Unlock() }()
	delay := s.read
	if r.Method != http.MethodGet {
		delay = s.write
	}
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if s.down != nil && s.down() {
		return nil, errRefused
	}
	if s.fault != nil {
		if response := s.fault(n); response != nil {
			return response, nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, virtualRequest{time.Now(), r.Method, r.URL.Path})
	return s.answer(r, body), nil
}

// answer returns the response to a request. The caller holds the lock.
func (s *virtualServer) answer(r *http.Request, body []byte) *http.Response {
	path := r.URL.Path
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case parts[0] == "apis" && len(parts) == 3: // discovery
		resources := map[string]string{"admissionregistration.k8s.io": "validatingadmissionpolicies", "dataworkflowservices.github.io": "clientmounts", "nnf.cray.hpe.com": "nnfdatamovements"}
		return respond(200, map[string]any{"kind": "APIResourceList", "resources": []any{map[string]any{"name": resources[parts[1]]}}})
	case r.Method == http.MethodPost && r.URL.Query().Get("dryRun") == "All":
		user := strings.Split(r.Header.Get("Impersonate-User"), ":")
		created, ok := s.policies["compute-daemons-"+user[3]]
		if ok && time.Since(created) > s.late { // its watch has delivered the policy
			return refuse(403, "Forbidden", "x is forbidden: ValidatingAdmissionPolicy 'compute-daemons-"+user[3]+"' with binding 'compute-daemons-"+user[3]+"' denied request: no", nil)
		}
		return respond(201, map[string]any{})
	case r.Method == http.MethodPatch:
		return s.apply(path, body)
	case r.Method == http.MethodDelete:
		var options struct{ Preconditions struct{ UID string } }
		_ = json.Unmarshal(body, &options)
		o := s.objects[path]
		switch {
		case o == nil:
			return refuse(404, "NotFound", "not found", map[string]any{"name": parts[len(parts)-1]})
		case o["metadata"].(map[string]any)["uid"] != options.Preconditions.UID:
			return refuse(409, "Conflict", "the UID in the precondition does not match", nil)
		}
		delete(s.objects, path)
		return respond(200, map[string]any{"kind": "Status", "status": "Success"})
	case s.objects[path] != nil:
		return respond(200, s.objects[path])
	case listedPlurals[parts[len(parts)-1]]:
		return s.list(parts[len(parts)-1], r)
	}
	return refuse(404, "NotFound", "not found", map[string]any{"name": parts[len(parts)-1]})
}

// apply merges nothing: each object has only one manager.
func (s *virtualServer) apply(path string, body []byte) *http.Response {
	var o map[string]any
	if err := json.Unmarshal(body, &o); err != nil {
		return refuse(400, "BadRequest", err.Error(), nil)
	}
	if strings.Contains(path, "/nowhere/") {
		return refuse(404, "NotFound", `namespaces "nowhere" not found`, map[string]any{"name": "nowhere", "kind": "namespaces"})
	}
	m := o["metadata"].(map[string]any)
	code := 200
	if old := s.objects[path]; old != nil {
		m["uid"] = old["metadata"].(map[string]any)["uid"]
	} else {
		s.uid++
		m["uid"], code = fmt.Sprintf("uid-%d", s.uid), 201
		if o["kind"] == "ValidatingAdmissionPolicyBinding" {
			s.policies[m["name"].(string)] = time.Now()
		}
	}
	s.objects[path] = o
	return respond(code, o)
}

// list returns a page.
func (s *virtualServer) list(plural string, r *http.Request) *http.Response {
	var paths []string
	for path := range s.objects {
		parts := strings.Split(path, "/")
		if parts[len(parts)-2] == plural {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	start, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	end, next := len(paths), ""
	if limit > 0 && start+limit < len(paths) {
		end = start + limit
		next = strconv.Itoa(end)
	}
	items := []any{}
	for _, path := range paths[start:end] {
		items = append(items, s.objects[path])
	}
	return respond(200, map[string]any{"kind": "List", "metadata": map[string]any{"resourceVersion": "1", "continue": next}, "items": items})
}

// listedPlurals are the collections.
var listedPlurals = map[string]bool{"serviceaccounts": true, "rolebindings": true, "clusterrolebindings": true, "clusterroles": true, "validatingadmissionpolicies": true, "validatingadmissionpolicybindings": true}

// accountsRun is a host with a virtual API server.
type accountsRun struct {
	t      *testing.T
	server *virtualServer
	dir    string
	nodes  int
}

func newAccountsRun(t *testing.T, nodes int, more ...string) *accountsRun {
	t.Helper()
	a := &accountsRun{t: t, server: newVirtualServer(), dir: t.TempDir(), nodes: nodes + len(more)}
	var b strings.Builder
	b.WriteString("apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nspec:\n  storageNodes:\n")
	for i := range nodes {
		if i%16 == 0 {
			fmt.Fprintf(&b, "  - type: Rabbit\n    name: rabbit-%04d\n    computesAccess:\n", i/16+1)
		}
		fmt.Fprintf(&b, "    - name: compute-%05d\n      index: %d\n", i+1, i%16)
	}
	b.WriteString("  externalComputeNodes:\n")
	for _, m := range more {
		fmt.Fprintf(&b, "  - name: %s\n", m)
	}
	for name, text := range map[string]string{"system.yaml": b.String(), "config": `{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": "https://api"}}], "users": [{"name": "u", "user": {"token": "t"}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}`} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// run runs nnf-deploy identities in virtual time. The signals are sent at these times.
func (a *accountsRun) run(command string, signals []time.Duration, args ...string) *outcome {
	a.t.Helper()
	o := &outcome{said: map[string]time.Duration{}}
	synctest.Test(a.t, func(t *testing.T) {
		for name := range a.server.policies {
			if a.server.late < time.Minute {
				a.server.policies[name] = time.Time{} // each run starts at the same virtual time
			}
		}
		p := Program
		p.New = func(c *cli.Call) *call {
			v := Program.New(c)
			v.transport = a.server
			return v
		}
		sent := make(chan os.Signal, len(signals))
		started, last := time.Now(), time.Duration(0)
		for _, at := range signals {
			time.AfterFunc(at, func() { sent <- syscall.SIGINT })
			last = at
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		all := append([]string{"identities", command, "--system-config", filepath.Join(a.dir, "system.yaml"), "--kubeconfig", filepath.Join(a.dir, "config")}, args...)
		o.code = p.Run(ctx, cli.Process{Stdout: &o.stdout, Stderr: &screenWriter{o, started}, Signals: sent}, all)
		o.took = time.Since(started)
		o.afterSignal = o.took - last
	})
	if slices.Contains(args, "json") && o.code < cli.ExitSignal {
		if err := json.Unmarshal(o.stdout.Bytes(), &o.document); err != nil {
			a.t.Fatalf("%v\n%s", err, &o.stderr)
		}
	}
	return o
}

func (a *accountsRun) expect(o *outcome, code int, texts ...string) {
	a.t.Helper()
	if o.code != code {
		a.t.Errorf("exit code %d, want %d\n%.3000s\n%.3000s", o.code, code, &o.stdout, &o.stderr)
	}
	all := strings.Join(strings.Fields(o.stdout.String()+o.stderr.String()), " ")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			a.t.Errorf("no %q:\n%.3000s\n%.3000s", text, &o.stdout, &o.stderr)
		}
	}
}

// Many nodes: the number of requests at the same time is limited, no request is sent for what is as it
// should be, the output is short, and the time is what the delays of the server permit.
func TestIdentitiesScale(t *testing.T) {
	nodes, err := strconv.Atoi(cmp.Or(os.Getenv(scaleNodes), "600"))
	if err != nil {
		t.Fatal(err)
	}
	a := newAccountsRun(t, nodes)
	var figures []scaleFigure
	measured := func(run string, command string, texts ...string) *outcome {
		debug.FreeOSMemory()
		_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
		before := processorTime(t)
		o := a.run(command, nil)
		a.expect(o, 0, texts...)
		f := scaleFigure{Run: run, Parallel: 16, Nodes: nodes, Seconds: o.took.Seconds(), CPU: (processorTime(t) - before).Seconds() * 1000 / float64(nodes),
			Memory: resident(t), Screen: o.stderr.Len() + o.stdout.Len()}
		figures = append(figures, f)
		t.Logf("%+v", f)
		if f.Screen > 60_000 || max(longestLine(o.stdout.Bytes()), longestLine(o.stderr.Bytes())) > 1000 {
			t.Errorf("%d bytes of output, lines of up to %d bytes", f.Screen, longestLine(o.stdout.Bytes()))
		}
		return o
	}
	count := strconv.Itoa(nodes)
	o := measured("identities apply", "apply", count+" nodes: "+count+" changed")
	objects := len(a.server.objects)
	if least := 4 * nodes; objects < least || a.server.most > 16 {
		t.Errorf("%d objects, %d requests at the same time", objects, a.server.most)
	}
	if most := time.Duration(objects)*a.server.write/16*5/4 + 5*time.Second; o.took > most {
		t.Errorf("%v for %d objects, want at most %v", o.took, objects, most)
	}
	requests := a.server.requests
	measured("identities apply, nothing to change", "apply", count+" nodes: "+count+" unchanged")
	if n := a.server.requests - requests; n > 40+objects/400 {
		t.Errorf("%d requests although nothing changed", n)
	}
	measured("identities status", "status", count+" complete")
	measured("identities remove", "remove", count+" nodes: "+count+" changed")
	if len(a.server.objects) > 0 {
		t.Errorf("%d objects are left", len(a.server.objects))
	}
	if path := os.Getenv(scaleFigures); path != "" {
		data, err := json.Marshal(figures)
		if err = errors.Join(err, os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// Ctrl-C stops after the nodes in progress. The next run does only the rest.
func TestIdentitiesInterrupted(t *testing.T) {
	a := newAccountsRun(t, 300)
	whole := newAccountsRun(t, 300)
	whole.expect(whole.run("apply", nil), 0)
	o := a.run("apply", []time.Duration{3 * time.Second})
	a.expect(o, 130, "interrupted: starting no further node", "to continue, run the command again")
	done := len(a.server.objects)
	if o.afterSignal > time.Second || done < 50 || done >= len(whole.server.objects) {
		t.Errorf("%v after the signal: %d of %d objects", o.afterSignal, done, len(whole.server.objects))
	}
	first := a.server.requests
	a.expect(a.run("apply", nil), 0)
	writes := 0
	for _, r := range a.server.log {
		if r.method == http.MethodPatch {
			writes++
		}
	}
	if writes != len(whole.server.objects) || len(a.server.objects) != writes {
		t.Errorf("%d writes of %d objects, %d requests of the first run", writes, len(whole.server.objects), first)
	}
	// While the API server is asked, before any node.
	a.server.read = 10 * time.Second
	o = a.run("apply", []time.Duration{time.Second})
	if o.code != 130 || o.afterSignal > time.Second {
		t.Errorf("exit code %d after %v\n%s", o.code, o.afterSignal, &o.stderr)
	}
}

// A busy server and a restart of the server only take time. If a server stays down, or refuses one
// kind, the error is one line, and not one for each node.
func TestIdentitiesFailures(t *testing.T) {
	a := newAccountsRun(t, 100, "nowhere")
	a.server.fault = func(n int) *http.Response {
		switch {
		case n%7 == 3:
			r := refuse(429, "TooManyRequests", "too many requests", map[string]any{"retryAfterSeconds": 1})
			r.Header.Set("Retry-After", "1")
			return r
		case n%31 == 5:
			return refuse(500, "InternalError", "etcdserver: leader changed", nil)
		}
		return nil
	}
	a.expect(a.run("apply", nil), 1, "101 nodes: 100 changed, 1 failed", "error: failed: nowhere: a namespace does not exist")
	a.server.fault = nil

	b := newAccountsRun(t, 200)
	b.server.down = func() bool { // 8 s, from the middle of the run
		s := time.Now().Second()
		return s >= 3 && s < 11
	}
	b.expect(b.run("apply", nil), 0, "200 nodes: 200 changed")

	c := newAccountsRun(t, 200)
	c.server.down = func() bool {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		return len(c.server.objects) > 300
	}
	o := c.run("apply", nil)
	c.expect(o, 1, "the API server did not answer: run the command again")
	if lines := strings.Count(o.stderr.String(), "error: "); lines > 1 || longestLine(o.stderr.Bytes()) > 1000 {
		t.Errorf("%d errors\n%.2000s", lines, &o.stderr)
	}
	if o.took > 10*time.Minute {
		t.Errorf("%v", o.took)
	}

	d := newAccountsRun(t, 2)
	d.server.fault = func(int) *http.Response {
		return refuse(404, "NotFound", "the server could not find the requested resource", nil)
	}
	d.expect(d.run("apply", nil), 1, "does not serve ValidatingAdmissionPolicies in version v1, which Kubernetes has since 1.30")
}

// A policy that the API server does not use is an error before anything is bound.
func TestIdentitiesNotEnforced(t *testing.T) {
	a := newAccountsRun(t, 2)
	a.server.late = time.Hour
	o := a.run("apply", nil)
	a.expect(o, 1, "the API server does not enforce the admission policies", "ValidatingAdmissionPolicy is not disabled")
	if o.took > 2*time.Minute || len(a.server.objects) != 4 {
		t.Errorf("%v, %d objects", o.took, len(a.server.objects))
	}
	a.expect(a.run("status", nil), 1, "the policies are not enforced")
}

// Between the deletion of an account and its creation, every server has forgotten its tokens. All nodes
// wait at the same time.
func TestIdentitiesRevoke(t *testing.T) {
	a := newAccountsRun(t, 100)
	a.expect(a.run("apply", nil), 0)
	uids := func() map[string]string {
		of := map[string]string{}
		for path, o := range a.server.objects {
			if strings.Contains(path, "/serviceaccounts/") {
				of[path] = o["metadata"].(map[string]any)["uid"].(string)
			}
		}
		return of
	}
	before := uids()
	a.expect(a.run("revoke", nil, "--dry-run", "compute-[00001-00003]"), 0, "3 nodes: 3 would change")
	if !reflect.DeepEqual(before, uids()) {
		t.Error("a dry run changes accounts")
	}
	a.server.log = nil
	o := a.run("revoke", nil, "compute-[00001-00040]")
	a.expect(o, 0, "40 nodes: 40 changed", "nnf-deploy install --no-programs --identity per-node compute-[00001-00040]")
	after := uids()
	changed := 0
	for path, uid := range before {
		if after[path] != uid {
			changed++
		}
	}
	if len(after) != 200 || changed != 80 || o.took > 20*time.Second {
		t.Errorf("%d of %d accounts are new, after %v", changed, len(after), o.took)
	}
	gone := map[string]time.Time{}
	for _, r := range a.server.log {
		switch {
		case r.method == http.MethodDelete:
			gone[r.path] = r.at
		case r.method == http.MethodPatch && r.at.Sub(gone[r.path]) < 15*time.Second:
			t.Errorf("%s exists again after %v", r.path, r.at.Sub(gone[r.path]))
		}
	}

	// Interrupted twice: the tokens are invalid, and the next step is clear.
	o = a.run("revoke", []time.Duration{5 * time.Second, 6 * time.Second}, "compute-00001")
	a.expect(o, 130, "the accounts are deleted, and so all tokens are invalid", "run nnf-deploy identities apply for the node, not earlier than 15s from now")
	if len(uids()) != 198 {
		t.Errorf("%d accounts", len(uids()))
	}
	a.expect(a.run("apply", nil), 0, "100 nodes: 1 changed, 99 unchanged")
}

// An interruption between the deletions of the two accounts of a node leaves the tokens of one valid. The
// next run revokes them.
func TestIdentitiesRevokeAgain(t *testing.T) {
	a := newAccountsRun(t, 1)
	a.expect(a.run("apply", nil), 0)
	a.server.write = 5 * time.Second
	a.expect(a.run("revoke", []time.Duration{6 * time.Second, 7 * time.Second}, "compute-00001"), 130, "run the command again to continue")
	const path = "/api/v1/namespaces/compute-00001/serviceaccounts/"
	left, ok := a.server.objects[path+"nnf-dm"]
	if a.server.objects[path+"clientmountd"] != nil || !ok {
		t.Fatal("the command was not interrupted between the accounts")
	}
	a.expect(a.run("revoke", nil, "compute-00001"), 0, "1 node: 1 changed")
	now := a.server.objects[path+"nnf-dm"]
	if now == nil || a.server.objects[path+"clientmountd"] == nil || reflect.DeepEqual(now, left) {
		t.Errorf("%v", now)
	}
}

// When the number of nodes passes a power of two times 400, blocks get other names. The old bindings are
// not deleted before the new ones exist.
func TestIdentitiesStaleBlocks(t *testing.T) {
	before, after := newAccountsRun(t, 401), newAccountsRun(t, 400)
	after.server = before.server
	before.expect(before.run("apply", nil), 0)
	objects := len(before.server.objects)
	after.expect(after.run("remove", nil, "--stale"), 1, "nothing was deleted", "run nnf-deploy identities apply first")
	if n := len(before.server.objects); n != objects {
		t.Errorf("%d objects of %d are left", n, objects)
	}
	after.expect(after.run("apply", nil), 0)
	after.expect(after.run("remove", nil, "--stale"), 0, "delete ClusterRoleBinding compute-daemons-clientmountd-2-0")
	after.expect(after.run("status", nil), 0, "400 complete")
}

// A list with the states of the results of nodes is the same as that of other commands.
func TestIdentitiesJSON(t *testing.T) {
	a := newAccountsRun(t, 3)
	o := a.run("apply", nil, "-o", "json", "compute-[00001-00002]")
	var d accountsDocument
	if err := json.Unmarshal(o.stdout.Bytes(), &d); err != nil || o.code != 0 {
		t.Fatalf("%v\n%s%s", err, &o.stdout, &o.stderr)
	}
	if d.Objects.Created != 11+8+6 || d.Counts[fleet.OK] != 2 || len(d.Nodes) != 2 || len(d.Nodes[0].Changes) != 4 || len(d.Shared) != 12 {
		t.Errorf("%+v", d)
	}
}
