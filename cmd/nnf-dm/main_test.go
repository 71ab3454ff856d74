package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var update = flag.Bool("update", false, "write golden texts into the scripts instead of comparing")

func TestMain(m *testing.M) { script.Main(m, program) }

func TestScripts(t *testing.T) { script.Run(t, program.Name, *update) }

// soon is longer than any step of these tests takes; a wait that reaches it fails.
const soon = 3 * time.Minute

// proc is the daemon as a separate process, without Kubernetes objects and root.
type proc struct {
	*lab.Process
	t      *testing.T
	socket string
}

// launch starts the daemon, which creates its socket unless spec has one of the service
// manager.
func launch(t *testing.T, socket string, spec lab.Spec) *proc {
	t.Helper()
	var err error
	if spec.Program, err = exec.LookPath(program.Name); err != nil {
		t.Fatal(err)
	}
	spec.Args = append([]string{"--config=/dev/null", "--log-format=text", "--node-name=compute-01", "--socket=" + socket}, spec.Args...)
	return &proc{lab.Start(t, lab.Processes(short(t)), spec), t, socket}
}

// simulated starts a daemon without Kubernetes and waits until it is ready.
func simulated(t *testing.T, args ...string) *proc {
	t.Helper()
	p := launch(t, filepath.Join(short(t), "s"), lab.Spec{Args: append([]string{"--simulated"}, args...)})
	p.notice("READY=1")
	return p
}

// short returns a directory whose name is short enough for the path of a socket
// (unix(7)).
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// text returns the log.
func (p *proc) text() string {
	var b strings.Builder
	for _, line := range p.Log() {
		b.WriteString(line.Text)
	}
	return b.String()
}

func (p *proc) notice(assignment string) {
	p.t.Helper()
	if _, err := p.WaitNotice(inTime(p.t), assignment); err != nil {
		p.t.Fatal(assignment, ": ", err)
	}
}

// count returns how often the daemon has sent an assignment to the service manager.
func (p *proc) count(assignment string) (n int) {
	for _, notice := range p.Notices() {
		if notice.Text == assignment {
			n++
		}
	}
	return n
}

// pings waits for n more watchdog messages.
func (p *proc) pings(n int) {
	p.t.Helper()
	n += p.count("WATCHDOG=1")
	wait.Within(p.t, soon, "WATCHDOG=1", func() bool { return p.count("WATCHDOG=1") >= n })
}

func (p *proc) logged(pattern string) {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	if _, err := p.WaitLog(inTime(p.t), func(l lab.LogLine) bool { return want.MatchString(l.Text) }); err != nil {
		p.t.Fatal(pattern, ": ", err)
	}
}

func (p *proc) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits for the exit of the daemon, checks its exit code, and waits for the end of
// the log.
func (p *proc) ended(want int) {
	p.t.Helper()
	code, err := p.Wait(inTime(p.t))
	if err != nil {
		p.t.Fatal(err)
	}
	if code != want {
		p.t.Errorf("exit code %d, want %d", code, want)
	}
	_, _ = p.WaitLog(inTime(p.t), func(lab.LogLine) bool { return false })
}

// gone checks that the daemon has removed its socket and lock file.
func (p *proc) gone() {
	p.t.Helper()
	for _, path := range []string{p.socket, p.socket + ".lock"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			p.t.Errorf("%s was not removed: %v", path, err)
		}
	}
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	// gRPC gives up a connection that the server does not answer within 20 s. On a busy machine, the
	// daemon may need longer to start.
	patient := grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: soon})
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), patient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func inTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	t.Cleanup(cancel)
	return ctx
}

// call calls Version, the smallest request.
func call(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := pb.NewDataMoverClient(conn).Version(inTime(t), new(emptypb.Empty))
	return err
}
