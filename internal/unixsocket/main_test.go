package unixsocket

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helpers are the programs that this test binary runs, by UNIXSOCKET_TEST_HELPER.
var helpers = map[string]func() error{
	"client":    helperClient,
	"listen":    helperListen,
	"activated": helperActivated,
	"exhausted": helperExhausted,
}

func TestMain(m *testing.M) {
	if f := helpers[os.Getenv("UNIXSOCKET_TEST_HELPER")]; f != nil {
		if err := f(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// process is a running helper. It prints its results as lines, and continues when its input
// is closed.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// start runs this binary as a helper. uid 0 keeps the user of the tests.
func start(t *testing.T, helper string, uid uint32, env ...string) *process {
	return startWith(t, helper, uid, nil, env...)
}

func startWith(t *testing.T, helper string, uid uint32, files []*os.File, env ...string) *process {
	t.Helper()
	// Other users cannot access the directory of the test binary, but this path.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "UNIXSOCKET_TEST_HELPER="+helper, "GORACE=atexit_sleep_ms=0"), env...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid + 1, Groups: []uint32{uid + 2, uid + 3}}
		cmd.Dir = "/"
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	t.Cleanup(p.end)
	return p
}

func (p *process) line() string {
	if !p.lines.Scan() {
		return ""
	}
	return p.lines.Text()
}

func (p *process) want(what string) {
	p.t.Helper()
	if got := p.line(); got != what {
		p.t.Fatalf("the helper printed %q, want %q", got, what)
	}
}

func (p *process) end() {
	if p.in != nil {
		p.in.Close()
		for p.lines.Scan() {
		}
		p.cmd.Wait()
		p.in = nil
	}
}

// kill kills the helper, like a crash.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.end()
}

// proceed waits for the parent.
func proceed() { io.Copy(io.Discard, os.Stdin) }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a helper as another user")
	}
}

// directory returns a directory that other users can read, unlike t.TempDir.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "unixsocket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// logs are the log records of a listener.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

var quiet = slog.New(slog.DiscardHandler)

// listen creates a listener, in a new directory unless o has a path.
func listen(t testing.TB, o Options) *Listener {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(directoryOf(t), "s")
	}
	if o.Log == nil {
		o.Log = quiet
	}
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func directoryOf(t testing.TB) string {
	if t, ok := t.(*testing.T); ok {
		return directory(t)
	}
	return t.TempDir()
}

func dial(t testing.TB, l *Listener) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(context.Background(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func accept(t testing.TB, l *Listener) *Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*Conn)
}

// contains fails unless the error contains all the texts.
func contains(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in the error: %v", w, err)
		}
	}
}

// helperClient connects and prints the response.
func helperClient() error {
	c, err := net.Dial("unix", os.Getenv("SOCKET"))
	if err != nil {
		return err
	}
	defer c.Close()
	c.Write([]byte("x"))
	answer, _ := io.ReadAll(io.LimitReader(c, 2))
	fmt.Printf("answer %q\n", answer)
	proceed()
	return nil
}

// fakeAcceptor is an acceptor without a kernel socket, for tests in a synctest bubble. Its
// connections are pipes with the peers that the test sets.
type fakeAcceptor struct {
	queue  chan any // net.Conn or error
	closed chan struct{}

	mu      sync.Mutex
	expired chan struct{}
	peers   map[net.Conn]Peer
}

func newFakeAcceptor() *fakeAcceptor {
	return &fakeAcceptor{queue: make(chan any, 100), closed: make(chan struct{}), expired: make(chan struct{}), peers: map[net.Conn]Peer{}}
}

func (f *fakeAcceptor) listener(t *testing.T, o Options) *Listener {
	if o.Log == nil {
		o.Log = quiet
	}
	o.PeerOf = f.peerOf
	l := newListener(f, nil, o)
	t.Cleanup(func() { l.Close() })
	return l
}

// connect returns the client's end of a new connection.
func (f *fakeAcceptor) connect(t *testing.T, uid uint32) net.Conn {
	client, server := net.Pipe()
	f.mu.Lock()
	f.peers[server] = Peer{UID: uid}
	f.mu.Unlock()
	f.queue <- server
	t.Cleanup(func() { client.Close() })
	return client
}

func (f *fakeAcceptor) peerOf(c net.Conn) (Peer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.peers[c]
	if !ok {
		return p, ErrNoPeer
	}
	return p, nil
}

func (f *fakeAcceptor) Accept() (net.Conn, error) {
	f.mu.Lock()
	expired := f.expired
	f.mu.Unlock()
	select {
	case <-expired:
		return nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case <-expired:
		return nil, os.ErrDeadlineExceeded
	case <-f.closed:
		return nil, net.ErrClosed
	case next := <-f.queue:
		if err, ok := next.(error); ok {
			return nil, err
		}
		return next.(net.Conn), nil
	}
}

func (f *fakeAcceptor) SetDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	past := false
	select {
	case <-f.expired:
		past = true
	default:
	}
	switch {
	case t.IsZero() && past:
		f.expired = make(chan struct{})
	case !t.IsZero() && !past:
		close(f.expired)
	}
	return nil
}

func (f *fakeAcceptor) Close() error   { close(f.closed); return nil }
func (f *fakeAcceptor) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "/fake"} }
