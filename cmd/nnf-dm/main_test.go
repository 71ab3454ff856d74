package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var update = flag.Bool("update", false, "write golden texts into the scripts and the documentation instead of comparing")

func TestMain(m *testing.M) { script.Main(m, program) }

func TestScripts(t *testing.T) { script.Run(t, program.Name, *update) }

// soon is more than anything here takes; waiting for it means failure.
const soon = 30 * time.Second

// proc is a daemon that runs as a process of its own, with a socket in
// place of that of the service manager.
type proc struct {
	t       *testing.T
	cmd     *exec.Cmd
	socket  string
	manager *net.UnixConn
	done    chan struct{}

	mu      sync.Mutex
	log     strings.Builder
	notices []string
}

// launch starts the daemon; files are handed over as systemd does (sd_listen_fds(3)).
// The environment is small, as under systemd.
func launch(t *testing.T, socket string, files []*os.File, env []string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, socket: socket, done: make(chan struct{})}
	name := filepath.Join(short(t), "n")
	var err error
	if p.manager, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--config=/dev/null", "--log-format=text", "--socket=" + socket}, args...)
	p.cmd = exec.Command(program.Name, args...)
	if files != nil { // the variable must have the number of the very process
		p.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", program.Name}, args...)...)
		env = append(env, "LISTEN_FDS=1")
	}
	p.cmd.ExtraFiles = files
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + name, "NODE_NAME=compute-01"}, env...)
	p.cmd.Stderr = p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.listen()
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
		_ = p.manager.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // what was sent is there
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		p.manager.Close()
		if t.Failed() {
			t.Logf("%s", p.text())
		}
	})
	return p
}

// simulated is a daemon without Kubernetes that is ready.
func simulated(t *testing.T, args ...string) *proc {
	t.Helper()
	p := launch(t, filepath.Join(short(t), "s"), nil, nil, append([]string{"--simulated"}, args...)...)
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

func (p *proc) listen() {
	for buf := make([]byte, 8192); ; {
		n, err := p.manager.Read(buf)
		if err != nil {
			return
		}
		p.more(func() { p.notices = append(p.notices, string(buf[:n])) })
	}
}

func (p *proc) more(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// Write takes standard error.
func (p *proc) Write(b []byte) (int, error) {
	p.more(func() { p.log.Write(b) })
	return len(b), nil
}

func (p *proc) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// until waits for something that is seen in log or notices.
func (p *proc) until(what string, seen func() bool) {
	p.t.Helper()
	wait.Within(p.t, soon, what, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return seen()
	})
}

func (p *proc) notice(text string) {
	p.t.Helper()
	p.until(text, func() bool { return slices.Contains(p.notices, text) })
}

// pings waits for so many messages to the watchdog from now on.
func (p *proc) pings(n int) {
	p.t.Helper()
	count := func() (pings int) {
		for _, s := range p.notices {
			if s == "WATCHDOG=1" {
				pings++
			}
		}
		return pings
	}
	p.mu.Lock()
	n += count()
	p.mu.Unlock()
	p.until("WATCHDOG=1", func() bool { return count() >= n })
}

func (p *proc) logged(pattern string) {
	p.t.Helper()
	want := regexp.MustCompile(pattern)
	p.until(pattern, func() bool { return want.MatchString(p.log.String()) })
}

func (p *proc) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ended waits for the exit code.
func (p *proc) ended(want int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(soon):
		p.t.Fatalf("it still runs after %s", soon)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != want {
		p.t.Errorf("exit code %d, want %d", code, want)
	}
}

// gone: nothing is left of a socket that the daemon has made.
func (p *proc) gone() {
	p.t.Helper()
	for _, path := range []string{p.socket, p.socket + ".lock"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			p.t.Errorf("%s stays behind: %v", path, err)
		}
	}
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
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

// call is the smallest question.
func call(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := pb.NewDataMoverClient(conn).Version(inTime(t), new(emptypb.Empty))
	return err
}
