package clientmount

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// apiOf parses the state of the API server from the status lines of this package.
func TestAPIOf(t *testing.T) {
	for _, state := range []string{systemd.APIAnswers, systemd.APISilent, systemd.APIConnecting} {
		if got := apiOf("1 mount ready for 1 ClientMount" + apiTexts[state] + " since today: x" + apiTexts[systemd.APIAnswers]); got != state {
			t.Errorf("%s is read as %q", state, got)
		}
	}
	if got := apiOf("starting"); got != "" {
		t.Errorf("%q", got)
	}
}

// Each event of the program has a valid and unique ID and a unique name, because sites
// search and alert by both. Each is in the list by which documentation and catalogue are
// checked.
func TestEvents(t *testing.T) {
	ids, names := map[string]bool{}, map[string]string{}
	for _, e := range append(Events(), daemon.Events()...) {
		if !e.Valid() {
			t.Errorf("%+v is not valid", e)
		}
		if ids[e.ID] {
			t.Errorf("the id of %q is used twice", e.Name)
		}
		ids[e.ID] = true
		if old, twice := names[e.Name]; twice {
			t.Errorf("the name %q has two ids: %s, %s", e.Name, old, e.ID)
		}
		names[e.Name] = e.ID
	}
	file, err := parser.ParseFile(token.NewFileSet(), "report.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
			for _, s := range g.Specs {
				if strings.HasPrefix(s.(*ast.ValueSpec).Names[0].Name, "event") {
					declared++
				}
			}
		}
	}
	if n := len(Events()); n != declared {
		t.Errorf("Events lists %d of %d", n, declared)
	}
}

// The hint matches the cause, however the cause is wrapped.
func TestHints(t *testing.T) {
	failing := func(cause error) error { return &node.CommandError{Line: "umount /x", Err: cause} }
	profile := schema.GroupResource{Group: "nnf.cray.hpe.com", Resource: "nnfstorageprofiles"}
	for name, test := range map[string]struct {
		severity dws.Severity
		cause    error
		want     string
	}{
		"fatal":      {dws.Fatal, errors.New("unable to find labels"), "retries fail the same way"},
		"roots":      {dws.Fatal, fmt.Errorf("refused: %w", plan.ErrOutsideRoots), "add it to mount.roots"},
		"no program": {dws.Major, failing(exec.ErrNotFound), "install the missing program"},
		"no volume":  {dws.Major, fmt.Errorf("%w vg/lv", errNoLV), "nvme list"},
		"busy":       {dws.Major, &node.CommandError{Line: "umount /x", Stderr: "umount: /x: target is busy.", Err: node.ExitStatus(32)}, "unmounts the file system as soon as"},
		"in use":     {dws.Major, &node.CommandError{Line: "lvchange vg/lv", Stderr: "  Logical volume vg/lv in use.", Err: node.ExitStatus(5)}, "deactivates the volume as soon as"},
		"link":       {dws.Major, safepath.ErrSymlink, "only if root owns it and only root can write to its directory"},
		"open":       {dws.Major, safepath.ErrUnsafe, "every directory above"},
		"slow":       {dws.Major, &node.CommandError{Line: "mount /x", TimedOut: true, Err: errors.New("timeout")}, "mount.command_timeout"},
		"no profile": {dws.Major, apierrors.NewNotFound(profile, "job7-0"), "kubectl get nnfstorageprofiles"},
		"no right":   {dws.Major, apierrors.NewForbidden(profile, "job7-0", nil), "role nnf-clientmount"},
		"other":      {dws.Major, errors.New("?"), "clientmountd retries"},
	} {
		wrapped := dws.WrapError(test.severity, "mount/unmount failed", dws.WrapError(dws.Major, "unable to mount file system", test.cause))
		if got := hintFor(wrapped, wrapped); !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q in it", name, got, test.want)
		}
	}
}

// An outage is logged once for each kind of failure.
func TestOutageIsLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	runLoop(t, dws.TypeXFS, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&out, nil)) }, func(t *testing.T, l *loop) {
		for i := range 5 {
			wait.Advance(time.Second)
			l.c.apiState(kube.State{LastError: fmt.Errorf("read from port %d: connection reset", 4000+i), Since: time.Now()})
		}
		l.c.apiState(kube.State{LastError: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}, Since: time.Now()})
		l.c.apiState(kube.State{LastError: fmt.Errorf("%w: knows v1alpha7", kube.ErrNotServed), Since: time.Now()})
		l.c.apiState(kube.State{Connected: true, Synced: true, Since: time.Now()})
		if err := l.c.Probe(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSpace(out.String()), "\n")
		want := []string{"port 4000", "unknown authority", "knows v1alpha7", "answers again"}
		if len(got) != len(want) {
			t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), &out)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("line %d is %q, want %q in it", i, got[i], want[i])
			}
		}
		if !strings.Contains(got[3], "down=4s") {
			t.Errorf("the whole outage took 4 s, logged is %q", got[3])
		}
	})
}

func TestLoopAPIStateLine(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		l.c.apiState(kube.State{LastError: errors.New("connection refused"), Since: time.Now()})
		synctest.Wait()
		if got := l.lines[len(l.lines)-1]; !strings.Contains(got, "API server has not answered since") || !strings.Contains(got, "connection refused") {
			t.Errorf("status line %q", got)
		}
		l.stop()
		if err := l.c.Probe(context.Background()); !errors.Is(err, errStopped) {
			t.Errorf("probe after the stop: %v", err)
		}
	})
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("ä", 5000)
	got := text.Shorten(long, 1000)
	if len(got) > 1000 || !strings.HasPrefix(got, "ää") || !strings.HasSuffix(got, "ää") || !strings.Contains(got, "shortened") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d %q", len(got), got)
	}
	if text.Shorten("short", 1000) != "short" {
		t.Error("short text changed")
	}
}

// versioned is a client of a server that serves some versions of ClientMounts.
type versioned struct {
	*fakeServer
	mu       sync.Mutex
	served   []string
	requests []string
	broken   bool               // the list works, but the watch is not served
	watching context.CancelFunc // ends the watch, as the server does when a version is removed
}

func (v *versioned) request(what string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requests = append(v.requests, what)
}

func (v *versioned) Served(_ context.Context, _ kube.Resource, known []string) (string, error) {
	v.request("lookup")
	for _, version := range known {
		if slices.Contains(v.served, version) {
			return version, nil
		}
	}
	return "", kube.ErrNotServed
}

func (v *versioned) Watch(ctx context.Context, r kube.Resource, _ string, onState func(kube.State), _ kube.Handler[dws.ClientMount]) error {
	v.request("watch " + r.Version)
	if !slices.Contains(v.served, r.Version) {
		onState(kube.State{LastError: kube.ErrVersionGone, Since: time.Now()})
		return kube.ErrVersionGone
	}
	onState(kube.State{Connected: true, Synced: true, Since: time.Now()})
	if v.broken {
		onState(kube.State{LastError: kube.ErrVersionGone, Since: time.Now()})
		return kube.ErrVersionGone
	}
	removed, cancel := context.WithCancel(ctx)
	v.watching = cancel
	<-removed.Done()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	onState(kube.State{LastError: kube.ErrVersionGone, Since: time.Now()})
	return kube.ErrVersionGone
}

// followVersions runs Follow with v while f runs, and returns the log.
func followVersions(t *testing.T, v *versioned, f func()) string {
	t.Helper()
	var out bytes.Buffer
	change := func(o *Options) {
		v.fakeServer = o.Client.(*fakeServer)
		o.Client, o.Log = v, slog.New(slog.NewTextHandler(&out, nil))
	}
	runLoop(t, dws.TypeXFS, change, func(t *testing.T, l *loop) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.c.Follow(ctx) }()
		f()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out.String()
}

// The versions are looked up only if the server does not serve the newest known one, and
// that is not reported as a failure.
func TestFollowedVersion(t *testing.T) {
	newest, older := api.VersionsDWS[0], api.VersionsDWS[1]
	for name, test := range map[string]struct {
		first, then []string // served versions
		requests    []string
		logged      string
	}{
		"newest":          {[]string{older, newest}, nil, []string{"watch " + newest}, ""},
		"older":           {[]string{older}, nil, []string{"watch " + newest, "lookup", "watch " + older}, ""},
		"replaced later":  {[]string{newest}, []string{older}, []string{"watch " + newest, "lookup", "watch " + older}, ""},
		"updated later":   {[]string{older}, []string{newest}, []string{"watch " + newest, "lookup", "watch " + older, "lookup", "watch " + newest}, ""},
		"installed later": {nil, []string{newest}, []string{"watch " + newest, "lookup", "lookup", "watch " + newest}, "serves no version"},
	} {
		t.Run(name, func(t *testing.T) {
			v := &versioned{served: test.first}
			log := followVersions(t, v, func() {
				synctest.Wait()
				if test.then == nil {
					return
				}
				if v.watching != nil {
					wait.Advance(2 * versionLasts)
				}
				v.served = test.then
				if v.watching != nil {
					v.watching()
				}
				wait.Advance(10 * time.Minute)
			})
			if !slices.Equal(v.requests, test.requests) {
				t.Errorf("requests %q, want %q", v.requests, test.requests)
			}
			if failed := strings.Contains(log, "WARN"); failed != (test.logged != "") || !strings.Contains(log, test.logged) {
				t.Errorf("log, want %q:\n%s", test.logged, log)
			}
		})
	}
}

// A server that serves lists and no watches is not asked in a tight loop, and is reported.
func TestWatchNeverServed(t *testing.T) {
	v := &versioned{served: api.VersionsDWS, broken: true}
	log := followVersions(t, v, func() { wait.Advance(10 * time.Minute) })
	// The pauses grow to 30 s; each attempt is a watch and a lookup.
	if n := len(v.requests); n < 20 || n > 80 {
		t.Errorf("%d requests in 10 minutes", n)
	}
	if !strings.Contains(log, "the watch failed") {
		t.Errorf("nothing is reported:\n%s", log)
	}
}
