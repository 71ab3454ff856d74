package offload

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var socketBehaviours = []behaviour{
	{"the socket is for all users, and never replaced while in use", "9.20", one, socketFile},
	{"limits apply to one user", "9.21", one, limits},
}

func socketFile(s *env) {
	s.usual()
	info, err := os.Lstat(s.Socket)
	if err != nil || info.Mode() != fs.ModeSocket|0o666 {
		s.t.Fatalf("%v, %v", info.Mode(), err)
	}
	out, code := s.another()
	if code != 1 || !strings.Contains(out, s.Socket) {
		s.t.Errorf("a second daemon: exit code %d, %s", code, out)
	}
	s.create() // the first one continues

	s.d.Kill9()
	if now, err := os.Lstat(s.Socket); err != nil || !os.SameFile(info, now) {
		s.t.Fatalf("a killed daemon leaves its socket: %v", err)
	}
	s.start() // replaces the stale socket
	s.create()
	s.Stop(s.d)
	if _, err := os.Lstat(s.Socket); !os.IsNotExist(err) {
		s.t.Errorf("the socket was not removed: %v", err)
	}

	s.Must(os.WriteFile(s.Socket, []byte("precious"), 0o600))
	if out, code := s.another(); code != 1 {
		s.t.Errorf("with a file at the path: exit code %d, %s", code, out)
	}
	if data, err := os.ReadFile(s.Socket); err != nil || !bytes.Equal(data, []byte("precious")) {
		s.t.Errorf("the file is %q, %v", data, err)
	}
	s.Must(os.Remove(s.Socket))
	s.Must(unix.Mkfifo(s.Socket, 0o600))
	if out, code := s.another(); code != 1 {
		s.t.Errorf("with a pipe at the path: exit code %d, %s", code, out)
	}
	if info, err := os.Lstat(s.Socket); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		s.t.Errorf("the pipe was removed: %v", err)
	}
}

// another runs a second daemon until it exits.
func (s *env) another() (output string, code int) {
	s.t.Helper()
	p := lab.Start(s.t, s.Lab, s.spec())
	code, err := p.Wait(s.ctx())
	s.Must(err)
	_, _ = p.WaitLog(s.ctx(), func(lab.LogLine) bool { return false }) // the end of the log
	for _, line := range p.Log() {
		output += line.Text
	}
	return output, code
}

// Above a limit, only that user gets RESOURCE_EXHAUSTED.
func limits(s *env) {
	s.config = "[limits]\ncreates_per_second = 1\ncreate_burst = 2\nconnections_per_user = 4\nmessage_size = \"8KiB\"\nbatch_size = 3\n"
	s.usual()
	s.create()
	s.create()
	_, err := s.me.Create(s.ctx(), s.usualRequest())
	s.code("a third create", err, codes.ResourceExhausted)
	s.createAs(s.as(root))
	wait.Within(s.t, patience, "the rate allows another", func() bool {
		r, err := s.me.Create(s.ctx(), s.usualRequest())
		return err == nil && r.Status == createOK
	})
	_, err = s.me.Create(s.ctx(), s.usualRequest(to(global+"/"+strings.Repeat("a", 8<<10))))
	s.code("a large message", err, codes.ResourceExhausted)
	batch := &pb2.CreateBatchRequest{Workflow: s.named2()}
	for range 4 {
		batch.Pairs = append(batch.Pairs, &pb2.CopyPair{Source: s.path + "/a", Destination: global + "/a"})
	}
	_, err = s.me2.CreateBatch(s.ctx(), batch)
	s.code("a large batch", err, codes.ResourceExhausted, pb2.ErrorReason_LIMIT_EXCEEDED)

	var open []net.Conn
	for range 4 { // alice has two connections already, or gets an error
		conn, err := alice.dial(s.Socket)
		if err == nil {
			open = append(open, conn)
		}
	}
	_, err = s.as(alice).Version(s.ctx(), nil)
	if c := codeOf(err); c != codes.ResourceExhausted && c != codes.Unavailable {
		s.t.Errorf("a connection above the limit: %v", err)
	}
	if _, err := s.as(eve).Version(s.ctx(), nil); err != nil {
		s.t.Errorf("another user: %v", err)
	}
	for _, conn := range open {
		conn.Close()
	}
	wait.Within(s.t, patience, "there is a place again", func() bool { _, err := s.as(alice).Version(s.ctx(), nil); return err == nil })
}

// caller is the identity of a connecting user.
type caller struct {
	uid, gid int
	groups   []int
}

var (
	root  = caller{}
	alice = caller{uid: 1001, gid: 1001} // the owner of the workflow
	eve   = caller{uid: 1002, gid: 1002}
)

func (c caller) dial(path string) (net.Conn, error) {
	return lab.DialAs(path, c.uid, c.gid, c.groups...)
}

// connect returns a connection to the test's socket.
func (s *env) connect(c caller) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(_ context.Context, path string) (net.Conn, error) { return c.dial(path) }))
	s.Must(err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// as returns a client of version 1, as2 one of version 2.
func (s *env) as(c caller) pb.DataMoverClient   { return pb.NewDataMoverClient(s.connect(c)) }
func (s *env) as2(c caller) pb2.DataMoverClient { return pb2.NewDataMoverClient(s.connect(c)) }
