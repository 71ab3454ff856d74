package offload

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

// socketVariable has the daemon's socket. It makes this binary the process of the hostile user.
const socketVariable = "CHAOS_HOSTILE_SOCKET"

// order is an attack.
type order struct {
	Attack string
	Job    []byte   // a request to copy with the hostile user's own job, encoded
	Others [][]byte // the same with the jobs of the others
	Names  []string // of movements of the others
}

// result is what the hostile user has found.
type result struct {
	Attack string
	Counts map[string]int // of responses, by code
	Wrong  []string       // responses that must not happen
}

// attackTime is how long an attack lasts.
const attackTime = 2 * time.Second

// attacker is the process of the hostile user.
type attacker struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	orders *json.Encoder
	done   chan struct{} // closed at the end of its output
}

func newAttacker(w *world) *attacker {
	cmd := exec.Command("/proc/self/exe") // other users cannot access the directory of the test binary
	cmd.Env = append(os.Environ(), socketVariable+"="+w.Socket)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	id := uint32(uids[hostile])
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	stdin, err := cmd.StdinPipe()
	w.Must(err)
	stdout, err := cmd.StdoutPipe()
	w.Must(err)
	w.Must(cmd.Start())
	a := &attacker{cmd: cmd, stdin: stdin, orders: json.NewEncoder(stdin), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		for results := json.NewDecoder(stdout); ; {
			var r result
			if results.Decode(&r) != nil {
				return
			}
			w.history.Note(fmt.Sprintf("%s: %s: %v", hostile, r.Attack, r.Counts))
			for _, text := range r.Wrong {
				w.history.Wrong("%s: %s: %s", hostile, r.Attack, text)
			}
		}
	}()
	return a
}

// start starts an attack, which ends after some seconds.
func (a *attacker) start(w *world, attack string) {
	o := order{Attack: attack}
	own := w.users[hostile].job
	o.Job, _ = proto.Marshal(requestFor(own, hostile, "dry", 1)) // cannot fail
	for _, name := range honest {
		u := w.users[name]
		u.mu.Lock()
		if u.job != nil {
			r, _ := proto.Marshal(requestFor(u.job, hostile, "dry", 1))
			o.Others = append(o.Others, r)
		}
		o.Names = append(o.Names, u.names[max(0, len(u.names)-5):]...)
		u.mu.Unlock()
	}
	w.Must(a.orders.Encode(o))
}

// stop ends the process and waits for it.
func (a *attacker) stop(w *world) {
	a.stdin.Close()
	<-a.done
	w.Must(a.cmd.Wait())
	a.cmd = nil
}

// kill ends the process after a failure.
func (a *attacker) kill() {
	if a == nil || a.cmd == nil {
		return
	}
	_ = a.cmd.Process.Kill()
	<-a.done
	_ = a.cmd.Wait()
}

// attacks are what the hostile user does.
var attacks = map[string]func(*hostileUser, order){
	"creates": (*hostileUser).creates,
	"foreign": (*hostileUser).foreign,
	"guesses": (*hostileUser).guesses,
	"waits":   (*hostileUser).waits,
	"unread":  (*hostileUser).unread,
	"idle":    (*hostileUser).idle,
	"garbage": (*hostileUser).garbage,
}

// hostileUser is an attack in progress.
type hostileUser struct {
	socket string
	end    time.Time
	mu     sync.Mutex
	result
}

// beHostile executes orders until the input ends.
func beHostile(socket string, in io.Reader, out io.Writer) int {
	// Otherwise a process of another user outlives its parent.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	var writing sync.Mutex
	var all sync.WaitGroup
	results := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if orders.Decode(&o) != nil {
			break
		}
		all.Go(func() {
			h := &hostileUser{socket: socket, end: time.Now().Add(attackTime), result: result{Attack: o.Attack, Counts: map[string]int{}}}
			attacks[o.Attack](h, o)
			writing.Lock()
			defer writing.Unlock()
			_ = results.Encode(h.result) // fails if the parent has exited
		})
	}
	all.Wait()
	return 0
}

func (h *hostileUser) count(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Counts[what]++
}

func (h *hostileUser) wrong(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.Wrong) < 5 {
		h.Wrong = append(h.Wrong, fmt.Sprintf(format, args...))
	}
}

// repeat calls f in n goroutines with a client each, until the end of the attack.
func (h *hostileUser) repeat(n int, f func(context.Context, pb.DataMoverClient, int) error) {
	ctx, cancel := context.WithDeadline(context.Background(), h.end)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+h.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.wrong("%v", err)
		return
	}
	defer conn.Close()
	client := pb.NewDataMoverClient(conn)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				err := f(ctx, client, i)
				h.count(status.Code(err).String())
				if status.Code(err) == codes.Unavailable { // the daemon does not run
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
}

// creates creates as many movements as possible.
func (h *hostileUser) creates(o order) {
	var r pb.DataMovementCreateRequest
	if err := proto.Unmarshal(o.Job, &r); err != nil {
		h.wrong("%v", err)
		return
	}
	h.repeat(32, func(ctx context.Context, c pb.DataMoverClient, _ int) error { _, err := c.Create(ctx, &r); return err })
}

// foreign copies with the jobs of others.
func (h *hostileUser) foreign(o order) {
	h.repeat(8, func(ctx context.Context, c pb.DataMoverClient, i int) error {
		if len(o.Others) == 0 {
			<-ctx.Done()
			return ctx.Err()
		}
		var r pb.DataMovementCreateRequest
		if err := proto.Unmarshal(o.Others[i%len(o.Others)], &r); err != nil {
			h.wrong("%v", err)
			return err
		}
		a, err := c.Create(ctx, &r)
		if err == nil && a.Status == pb.DataMovementCreateResponse_SUCCESS {
			h.wrong("%s is a copy with the job %s of another user", a.Uid, r.Workflow.Name)
		}
		l, err := c.List(ctx, &pb.DataMovementListRequest{Workflow: r.Workflow})
		if err == nil && len(l.Uids) > 0 {
			h.wrong("the list of the job %s of another user has %q", r.Workflow.Name, l.Uids)
		}
		return err
	})
}

// guesses asks for movements of others, cancels and deletes them. The responses must be those for a name
// that does not exist.
func (h *hostileUser) guesses(o order) {
	var mu sync.Mutex
	n := 0
	h.repeat(200, func(ctx context.Context, c pb.DataMoverClient, _ int) error {
		mu.Lock()
		n++
		i := n
		mu.Unlock()
		name := fmt.Sprintf("nnf-dm-node-%05d", i)
		if i%8 == 0 && len(o.Names) > 0 {
			name = o.Names[i/8%len(o.Names)]
		}
		var got, want string
		var err error
		switch i / 8 % 3 {
		case 0:
			var a *pb.DataMovementStatusResponse
			a, err = c.Status(ctx, &pb.DataMovementStatusRequest{Uid: name, MaxWaitTime: int64(i / 8 % 2)})
			got, want = fmt.Sprint(a.GetState(), a.GetStatus(), a.GetMessage(), a.GetCommandStatus()), fmt.Sprint(pb.DataMovementStatusResponse_UNKNOWN_STATE, pb.DataMovementStatusResponse_NOT_FOUND, "", (*pb.DataMovementCommandStatus)(nil))
		case 1:
			var a *pb.DataMovementCancelResponse
			a, err = c.Cancel(ctx, &pb.DataMovementCancelRequest{Uid: name})
			got, want = fmt.Sprint(a.GetStatus(), strings.ReplaceAll(a.GetMessage(), name, "NAME")), fmt.Sprint(pb.DataMovementCancelResponse_NOT_FOUND, `could not find data movement "NAME"`)
		default:
			var a *pb.DataMovementDeleteResponse
			a, err = c.Delete(ctx, &pb.DataMovementDeleteRequest{Uid: name})
			got, want = fmt.Sprint(a.GetStatus(), strings.ReplaceAll(a.GetMessage(), name, "NAME")), fmt.Sprint(pb.DataMovementDeleteResponse_NOT_FOUND, `could not find data movement "NAME"`)
		}
		if err == nil && got != want {
			h.wrong("the response for %s is %q, want %q", name, got, want)
		}
		return err
	})
}

// waits waits many times for a movement of their own.
func (h *hostileUser) waits(o order) {
	var r pb.DataMovementCreateRequest
	_ = proto.Unmarshal(o.Job, &r) // was encoded by the parent
	var mu sync.Mutex
	name := ""
	h.repeat(200, func(ctx context.Context, c pb.DataMoverClient, i int) error {
		mu.Lock()
		if name == "" {
			a, err := c.Create(ctx, &r)
			if name = a.GetUid(); name == "" {
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
				return err
			}
		}
		its := name
		mu.Unlock()
		short, cancel := context.WithTimeout(ctx, time.Duration(i+1)*10*time.Millisecond)
		defer cancel()
		_, err := c.Status(short, &pb.DataMovementStatusRequest{Uid: its, MaxWaitTime: -1})
		if _, err := c.Cancel(ctx, &pb.DataMovementCancelRequest{Uid: its}); err == nil && i%50 == 0 {
			_, _ = c.Delete(ctx, &pb.DataMovementDeleteRequest{Uid: its})
		}
		return err
	})
}

// hold opens connections until the end of the attack; first is called for each of them.
func (h *hostileUser) hold(n int, first func(net.Conn) error) {
	var held []net.Conn
	for range n {
		c, err := net.DialTimeout("unix", h.socket, time.Second)
		if err != nil {
			h.count("refused")
			time.Sleep(10 * time.Millisecond)
			continue
		}
		held = append(held, c)
		_ = c.SetDeadline(h.end)
		if first(c) != nil {
			h.count("cut")
			continue
		}
		h.count("connected")
	}
	time.Sleep(time.Until(h.end)) // the attack itself
	for _, c := range held {
		c.Close()
	}
}

// idle opens connections and sends the first bytes only.
func (h *hostileUser) idle(order) {
	h.hold(300, func(c net.Conn) error { _, err := c.Write([]byte(http2.ClientPreface)); return err })
}

// garbage sends bytes that are not the protocol.
func (h *hostileUser) garbage(order) {
	texts := []string{"GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 4096), http2.ClientPreface + strings.Repeat("\x00\xff\x7f", 999), "\x00", http2.ClientPreface[:11]}
	n := 0
	h.hold(100, func(c net.Conn) error { n++; _, err := io.WriteString(c, texts[n%len(texts)]); return err })
}

// unread sends requests with the largest flow-control window, and reads no response.
func (h *hostileUser) unread(o order) {
	var r pb.DataMovementCreateRequest
	_ = proto.Unmarshal(o.Job, &r)                                                   // was encoded by the parent
	body, _ := proto.Marshal(&pb.DataMovementListRequest{Workflow: r.GetWorkflow()}) // cannot fail
	h.hold(20, func(c net.Conn) error {
		if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
			return err
		}
		f := http2.NewFramer(c, c)
		if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}); err != nil {
			return err
		}
		for stream := uint32(1); stream < 200; stream += 2 {
			var block strings.Builder
			encoder := hpack.NewEncoder(&block)
			encoder.SetMaxDynamicTableSize(0)
			for _, field := range [][2]string{
				{":method", "POST"}, {":scheme", "http"}, {":path", pb.DataMover_List_FullMethodName}, {":authority", "localhost"},
				{"content-type", "application/grpc"}, {"te", "trailers"},
			} {
				if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
					return err
				}
			}
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true}); err != nil {
				return err
			}
			if err := f.WriteData(stream, true, append([]byte{0, 0, 0, 0, byte(len(body))}, body...)); err != nil {
				return err
			}
		}
		return nil
	})
}
