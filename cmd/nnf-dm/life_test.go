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

// READY is sent when the daemon responds to clients, and STOPPING at the shutdown.
func TestNotifications(t *testing.T) {
	t.Parallel()
	p := simulated(t)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Errorf("a client after READY: %v", err)
	}
	p.notice("STATUS=" + p.socket + ": simulated: nothing is copied")
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

// The daemon is ready without the API server.
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
		t.Errorf("a request that needs the API server: %v, %v", r, err)
	}
	p.logged(`level=WARN msg="a request could not be served" rpc=/datamovement.DataMover/Status uid=\d+ object=nnf-dm-x error=".*connection refused.*event=dm-api`)
	p.notice("STATUS=" + p.socket + ": the watch on the data movements in nnf-dm-system failed; retrying")
	p.signal(syscall.SIGTERM) // a watch that cannot start does not delay the exit
	p.ended(0)
	p.gone()
}

// held starts a request without its message: it runs until finish, which completes it and
// returns the result.
func held(t *testing.T, conn *grpc.ClientConn) (finish func() (*pb.DataMovementCreateResponse, error)) {
	t.Helper()
	s, err := conn.NewStream(inTime(t), &grpc.StreamDesc{ClientStreams: true}, "/datamovement.DataMover/Create")
	if err != nil {
		t.Fatal(err)
	}
	// A later call on the same connection: when it returns, the request has started.
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

// A shutdown waits for running requests and accepts no new clients.
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
		t.Errorf("the running request: %v, %v", out, err)
	}
	p.ended(0)
	p.gone()
}

// Requests that hang are aborted after the shutdown timeout.
func TestShutdownTimeout(t *testing.T) {
	t.Parallel()
	p := simulated(t, "--shutdown-timeout=100ms")
	finish := held(t, dial(t, p.socket))
	p.signal(syscall.SIGTERM)
	p.ended(0)
	p.logged("level=WARN msg=\"the shutdown timeout has expired; running requests are aborted\"")
	if _, err := finish(); status.Code(err) == codes.OK {
		t.Error("the aborted request has succeeded")
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

// An endless stream does not delay the shutdown.
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
	if strings.Contains(p.text(), "requests are aborted") {
		t.Error("the shutdown has waited for the stream")
	}
}

// The daemon pings the watchdog, even before it has served a client.
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

// The daemon serves clients despite an invalid watchdog setting.
func TestInvalidWatchdogSetting(t *testing.T) {
	t.Parallel()
	p := launch(t, short(t)+"/s", lab.Spec{Args: []string{"--simulated"}, Env: []string{"WATCHDOG_USEC=soon"}})
	p.notice("READY=1")
	p.logged(`level=WARN msg="invalid watchdog settings from the service manager; no pings are sent"`)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
}

// configure replaces the configuration and waits until the daemon has reloaded it.
func (p *proc) configure(file, text string) {
	p.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	before := p.count("READY=1")
	p.signal(syscall.SIGHUP)
	wait.Within(p.t, soon, "end of the reload", func() bool { return p.count("READY=1") > before })
}

// connections opens n connections and returns how many were refused.
func connections(t *testing.T, socket string, n int) (refused int) {
	t.Helper()
	for range n {
		conn := dial(t, socket)
		defer conn.Close()
		switch err := call(t, conn); status.Code(err) {
		case codes.OK:
		case codes.ResourceExhausted, codes.Unavailable: // refused with an error; rejected
			refused++
		default:
			t.Error(err)
		}
	}
	return refused
}

// A reload changes the settings that can change at run time, for connected clients as
// well. An invalid file changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	const many = 40 // above the limit of root, too
	file := filepath.Join(short(t), "c.toml")
	if err := os.WriteFile(file, []byte("limits.connections = 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := simulated(t, "--config="+file)
	if n := connections(t, p.socket, many); n == 0 {
		t.Error("no connection was refused")
	}
	p.configure(file, "limits.connections = 100\nsocket.mode = \"0600\"\n")
	p.logged(`msg="configuration reloaded" changed=limits.connections needs_restart=socket.mode event=reload`)
	if n := connections(t, p.socket, many); n != 0 {
		t.Errorf("%d were refused after the reload", n)
	}
	for _, bad := range []string{"limits.connections = 9\nno", "limits.connections = 1\n", "options.dcp = [\"-U\"]\nlimits.connections = 9\n"} {
		p.configure(file, bad)
		if n := connections(t, p.socket, many); n != 0 {
			t.Errorf("%d were refused: %q was applied", n, bad)
		}
	}
	wait.Within(t, soon, "three refusals", func() bool { return strings.Count(p.text(), "event=dm-config-refused") == 3 })

	// The log level applies after the reload.
	p.configure(file, "log.level = \"error\"\nlimits.connections = 100\n")
	before := len(p.text())
	p.configure(file, "log.level = \"error\"\nlimits.connections = 101\n")
	if more := p.text()[before:]; more != "" {
		t.Errorf("records below the level: %s", more)
	}
	p.signal(syscall.SIGTERM)
	p.ended(0)
	p.gone()
}

// A reload before the shutdown changes its timeout.
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
