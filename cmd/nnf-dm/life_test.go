package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// READY is said when clients are answered, and the whole life is told.
func TestLife(t *testing.T) {
	t.Parallel()
	p := simulated(t)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Errorf("ready, and a client gets %v", err)
	}
	p.notice("STATUS=" + p.socket + ": simulated, nothing is copied")
	p.signal(syscall.SIGTERM)
	p.notice("STOPPING=1")
	p.ended(0)
	p.gone()
	notices := p.Notices()
	for i, n := range notices {
		if n.Text == "READY=1" && i > 0 || n.Text == "STOPPING=1" && i < len(notices)-1 {
			t.Errorf("the messages are out of order: %v", notices)
		}
	}
}

// The API server is not needed to be ready.
func TestReadyWithoutServer(t *testing.T) {
	t.Parallel()
	dir := short(t)
	kubeconfig := filepath.Join(dir, "k")
	config := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := launch(t, filepath.Join(dir, "s"), lab.Spec{Args: []string{"--kubeconfig=" + kubeconfig}})
	p.notice("READY=1")
	p.notice("STATUS=" + p.socket + ": waiting for requests")
	conn := dial(t, p.socket)
	if err := call(t, conn); err != nil {
		t.Error(err)
	}
	w := &pb.DataMovementWorkflow{Name: "job7", Namespace: "default"}
	r, err := pb.NewDataMoverClient(conn).Status(inTime(t), &pb.DataMovementStatusRequest{Workflow: w, Uid: "nnf-dm-x"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a question that needs the API server: %v, %v", r, err)
	}
	p.logged(`level=WARN msg="a request could not be served" rpc=/datamovement.DataMover/Status uid=\d+ object=nnf-dm-x error=".*connection refused.*event=dm-api`)
	p.notice("STATUS=" + p.socket + ": the API server does not show the data movements of nnf-dm-system, trying again")
	p.signal(syscall.SIGTERM) // a watch that cannot begin is no reason to stay
	p.ended(0)
	p.gone()
}

// held is a request of which the daemon has only the beginning: it runs until
// finish, which returns what became of it.
func held(t *testing.T, conn *grpc.ClientConn) (finish func() (*pb.DataMovementCreateResponse, error)) {
	t.Helper()
	s, err := conn.NewStream(inTime(t), &grpc.StreamDesc{ClientStreams: true}, "/datamovement.DataMover/Create")
	if err != nil {
		t.Fatal(err)
	}
	// Behind it on the same connection: when this is answered, that has started.
	if err := call(t, conn); err != nil {
		t.Fatal(err)
	}
	return func() (*pb.DataMovementCreateResponse, error) {
		if err := s.SendMsg(new(pb.DataMovementCreateRequest)); err != nil {
			return nil, err
		}
		if err := s.CloseSend(); err != nil {
			return nil, err
		}
		out := new(pb.DataMovementCreateResponse)
		return out, s.RecvMsg(out)
	}
}

// What runs may end; nobody new comes in meanwhile.
func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	p := simulated(t, "--shutdown-timeout=1h")
	conn := dial(t, p.socket)
	finish := held(t, conn)
	p.signal(syscall.SIGTERM)
	p.logged("event=stopping signal=terminated limit=1h0m5s")
	for {
		c, err := net.Dial("unix", p.socket)
		if err != nil {
			break
		}
		c.Close()
	}
	if out, err := finish(); err != nil || out.Uid == "" {
		t.Errorf("the request that ran: %v, %v", out, err)
	}
	p.ended(0)
	p.gone()
}

// What does not end is cut off after the time for it.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	p := simulated(t, "--shutdown-timeout=100ms")
	finish := held(t, dial(t, p.socket))
	p.signal(syscall.SIGTERM)
	p.ended(0)
	p.logged("level=WARN msg=\"requests were still running, they are cut off\"")
	if _, err := finish(); status.Code(err) == codes.OK {
		t.Error("the request was answered after the end")
	}
	p.gone()
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := simulated(t, "--shutdown-timeout=1h")
	held(t, dial(t, p.socket))
	p.signal(syscall.SIGTERM)
	p.logged("event=stopping")
	p.signal(syscall.SIGINT)
	p.ended(128 + int(syscall.SIGINT))
	p.logged(`event=stop-forced signal=interrupt left="1 connections"`)
}

// A stream without an end of its own does not hold the shutdown up.
func TestShutdownEndsHealthWatches(t *testing.T) {
	t.Parallel()
	p := simulated(t, "--shutdown-timeout=1h")
	w, err := grpc_health_v1.NewHealthClient(dial(t, p.socket)).Watch(inTime(t), new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if first, err := w.Recv(); err != nil || first.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", first, err)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
	if strings.Contains(p.text(), "cut off") {
		t.Error("it was waited for")
	}
}

// The watchdog is pinged while the daemon answers, also one that serves nobody,
// and not while it does not.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	p := launch(t, short(t)+"/s", lab.Spec{Args: []string{"--simulated"}, Watchdog: 200 * time.Millisecond})
	p.notice("READY=1")
	p.pings(3)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Error(err)
	}
	p.pings(3)
	p.signal(syscall.SIGTERM)
	p.ended(0)
}

// A value that cannot be understood is no reason not to serve.
func TestWatchdogNonsense(t *testing.T) {
	t.Parallel()
	p := launch(t, short(t)+"/s", lab.Spec{Args: []string{"--simulated"}, Env: []string{"WATCHDOG_USEC=soon"}})
	p.notice("READY=1")
	p.logged(`level=WARN msg="the watchdog setting of the service manager is not understood"`)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
}

// configure replaces the configuration and tells the daemon, which says when it has
// read it.
func (p *proc) configure(file, text string) {
	p.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	before := p.count("READY=1")
	p.signal(syscall.SIGHUP)
	wait.Within(p.t, soon, "end of the reload", func() bool { return p.count("READY=1") > before })
}

// connections opens so many, and returns how many were refused.
func connections(t *testing.T, socket string, n int) (refused int) {
	t.Helper()
	for range n {
		conn := dial(t, socket)
		defer conn.Close()
		switch err := call(t, conn); status.Code(err) {
		case codes.OK:
		case codes.ResourceExhausted, codes.Unavailable: // told so; turned away
			refused++
		default:
			t.Error(err)
		}
	}
	return refused
}

// What may change at run time does, for those who are there, too. A bad file
// changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	const many = 40 // more than root may have, too
	file := filepath.Join(short(t), "c.toml")
	if err := os.WriteFile(file, []byte("limits.connections = 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := simulated(t, "--config="+file)
	if n := connections(t, p.socket, many); n == 0 {
		t.Error("nobody was refused")
	}
	p.configure(file, "limits.connections = 100\nsocket.mode = \"0600\"\n")
	p.logged(`msg="configuration read again" changed=limits.connections needs_restart=socket.mode event=reload`)
	if n := connections(t, p.socket, many); n != 0 {
		t.Errorf("%d were refused after the reload", n)
	}
	for _, bad := range []string{"limits.connections = 9\nno", "limits.connections = 1\n", "options.dcp = [\"-U\"]\nlimits.connections = 9\n"} {
		p.configure(file, bad)
		if n := connections(t, p.socket, many); n != 0 {
			t.Errorf("%d were refused: %q was taken over", n, bad)
		}
	}
	wait.Within(t, soon, "three refusals", func() bool { return strings.Count(p.text(), "event=dm-config-refused") == 3 })

	// Debug records come and go with the level.
	p.configure(file, "log.level = \"error\"\nlimits.connections = 100\n")
	before := len(p.text())
	p.configure(file, "log.level = \"error\"\nlimits.connections = 101\n")
	if more := p.text()[before:]; more != "" {
		t.Errorf("said below the level: %s", more)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
	p.gone()
}

// The time for the shutdown may be changed until it begins.
func TestReloadShutdownTimeout(t *testing.T) {
	t.Parallel()
	file := filepath.Join(short(t), "c.toml")
	if err := os.WriteFile(file, []byte("daemon.shutdown_timeout = \"1h\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := simulated(t, "--config="+file)
	held(t, dial(t, p.socket))
	p.configure(file, "daemon.shutdown_timeout = \"100ms\"\n")
	p.signal(syscall.SIGTERM)
	p.ended(0)
}
