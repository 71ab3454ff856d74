package offload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/chaos"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const (
	// callLimit is the deadline of a call, in addition to the time that it waits.
	callLimit = 15 * time.Second
	// endless is the deadline of a wait without a limit.
	endless = 8 * time.Second
	// concurrent is how many calls a user may have in progress.
	concurrent = 24
	// requestTimeout is the daemon's time limit for a request to the API server.
	requestTimeout = 5 * time.Second
)

// hostile is the user who disturbs the others.
const hostile = "mallory"

// users are those who only want to copy, and the hostile one.
var (
	honest = []string{"alice", "bob", "carol"}
	uids   = map[string]int{"alice": 1001, "bob": 1002, "carol": 1003, hostile: 6666}
)

// offload returns the world of nnf-dm.
func offload() chaos.World {
	return chaos.World{Name: "offload", Verbs: verbs, Length: 55, Adjust: hit, Play: play}
}

// The arguments of steps.
var (
	kinds  = []string{"dry", "dry", "dry", "copy", "stdout", "slow", "slow", "broken", "invalid", "held", "options", "bad", "keyed"}
	places = []string{"0", "0", "1", "2", "5"} // from the last movement
	waits  = []string{"0", "0", "1", "3", "-1"}
	millis = []string{"10", "50", "100", "200", "500", "1000", "2000"}
)

var verbs = chaos.Join(chaos.ServerFaults("any", "list", "watch", "get", "create", "delete", "patch-finalizer"), map[string]chaos.Verb{
	"create":        {Weight: 30, Args: [][]string{honest, kinds}},
	"repeat":        {Weight: 3, Args: [][]string{honest}}, // the last keyed creation
	"status":        {Weight: 16, Args: [][]string{honest, places, waits}},
	"list":          {Weight: 6, Args: [][]string{honest}},
	"cancel":        {Weight: 9, Args: [][]string{honest, places}},
	"delete":        {Weight: 9, Args: [][]string{honest, places}},
	"cancel-delete": {Weight: 3, Args: [][]string{honest, places}}, // one after the other
	"peek":          {Weight: 4, Args: [][]string{honest, honest, {"status", "cancel", "delete"}}},
	"vanish":        {Weight: 4, Args: [][]string{honest, {"create", "wait", "list"}, {"1", "5", "20", "100", "300"}}}, // the client is killed
	"job":           {Weight: 4, Args: [][]string{honest, {"end", "start", "start"}}},
	"wait":          {Weight: 40, Args: [][]string{millis}},
	"attack":        {Weight: 7, Args: [][]string{attackNames()}},     // of the hostile user, for some seconds
	"rest":          {Weight: 1, Args: [][]string{{"1000", "13000"}}}, // no calls: the daemon may exit when it is idle
	"again":         {Weight: 2},                                      // a graceful restart

	"rabbit":   {Weight: 6, Fault: true, Args: [][]string{{"hold", "slow", "minor", "storm", "die", "pause", "resume", "restart"}}},
	"kill":     {Weight: 3, Fault: true},
	"term":     {Weight: 3, Fault: true},
	"stop":     {Weight: 2, Fault: true},
	"cont":     {Weight: 6},
	"start":    {Weight: 6, Args: [][]string{{"activated", "lookup"}}},                                      // by the socket of the service manager
	"start-as": {Weight: 6, Fault: true, Args: [][]string{{"own", "own", "nofile=24", "nofile=40", "few"}}}, // with its own socket, few files or few requests
	"token":    {Weight: 3, Fault: true, Args: [][]string{{"revoke", "bad", "empty", "new", "new"}}},
	"state":    {Weight: 2, Fault: true, Args: [][]string{chaos.DirectoryFaults}},
	"clear":    {Weight: 9}, // ends the faults of connections, of the rabbit, the token and the state directory
})

// attackNames returns the names of the attacks.
func attackNames() (names []string) {
	for name := range attacks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// play plays a script in a world of its own.
func play(t *testing.T, tb lab.TB, s chaos.Script) chaos.Counts {
	t.Helper()
	w := newWorld(tb, fixture.New(t).For(tb), !chaos.World{Verbs: verbs}.HasFaults(s))
	w.run(s)
	return w.counts
}

// hit often makes the next step one that meets the fault that was just added.
func hit(random *rand.Rand, before chaos.Script, s *chaos.Step) {
	if len(before) == 0 || random.IntN(3) == 0 {
		return
	}
	last := before[len(before)-1]
	if !slices.Contains([]string{"answer", "cut", "delay"}, last.Verb) {
		return
	}
	user, place := honest[random.IntN(len(honest))], places[random.IntN(len(places))]
	switch last.Args[0] {
	case "create":
		*s = chaos.Step{Verb: "create", Args: []string{user, kinds[random.IntN(len(kinds))]}}
	case "delete":
		*s = chaos.Step{Verb: "delete", Args: []string{user, place}}
	case "patch-finalizer":
		*s = chaos.Step{Verb: "cancel", Args: []string{user, place}}
	case "list":
		*s = chaos.Step{Verb: "list", Args: []string{user}}
	}
}

// user is one who copies with the job of theirs.
type user struct {
	name  string
	conn  *grpc.ClientConn
	calls atomic.Int64 // in progress

	mu    sync.Mutex
	job   *fixture.Job // nil: it has ended
	names []string     // of the job's movements
	keyed *pb.DataMovementCreateRequest
	last  int // number of the keyed request
}

// world is one compute node with its rabbit, and what the script has done to it.
type world struct {
	*fixture.Fixture
	tb       lab.TB
	history  *history
	follower context.CancelFunc
	follow   sync.WaitGroup
	users    map[string]*user
	attacker *attacker
	account  *fixture.Account
	rabbit   *lab.Rabbit
	rules    []string // faults of the rabbit

	daemon   *lab.Process
	daemons  []*lab.Process
	listener *os.File // of the service manager; nil: the daemon has its own
	base     lab.Usage
	started  time.Time
	stopped  bool
	limited  bool      // it has few open files
	excused  bool      // it may exit: it cannot work
	broken   bool      // the state directory
	restart  bool      // the service manager starts it without a client
	earliest time.Time // when the service manager starts it again
	over     func()    // ends the pause in which it does not run

	number  atomic.Int64 // of the last creation
	tokens  int
	token   string // condition of the token file
	jobs    int
	ended   []*fixture.Job
	calls   sync.WaitGroup
	resting atomic.Bool
	stop    chan struct{} // ends the polls
	polls   sync.WaitGroup
	paused  bool // the rabbit
	counts  chaos.Counts
}

// newWorld creates a node with a proxy, a rabbit and the jobs of all users. No daemon runs yet.
func newWorld(tb lab.TB, f *fixture.Fixture, faultless bool) *world {
	tb.Helper()
	w := &world{Fixture: f, tb: tb, users: map[string]*user{}, stop: make(chan struct{})}
	w.counts.Scripts = 1
	if os.Geteuid() != 0 || f.Features.UserNamespace {
		tb.Fatal("only root can connect as other users")
	}
	f.Site()
	f.UseProxy()
	f.Must(os.MkdirAll(f.State("nnf-dm"), 0o755))
	f.Must(unix.Mount("state", f.State("nnf-dm"), "tmpfs", 0, "size=64k,mode=0755"))
	tb.Cleanup(func() { _ = unix.Unmount(f.State("nnf-dm"), unix.MNT_DETACH) })
	w.account = f.Account("nnf-dm-system", "nnf-dm-daemon-role", "NnfDataMovement", f.Rabbit)
	w.tokens = 1
	w.startRabbit()
	w.history = newHistory(uids, faultless, func(ctx context.Context, name string) (lab.Object, error) {
		o, err := f.Cluster.Get(ctx, "NnfDataMovement", f.Rabbit, name)
		if lab.IsNotFound(err) {
			return nil, nil
		}
		return o, err
	})
	var ctx context.Context
	ctx, w.follower = context.WithCancel(context.Background())
	w.follow.Go(func() {
		for ctx.Err() == nil {
			_ = f.Cluster.Follow(ctx, "NnfDataMovement", f.Rabbit, w.history.observe)
			kube.Pause(ctx, 50*time.Millisecond) // the server may be down
		}
	})
	for name := range uids {
		u := &user{name: name, conn: w.dial(name, nil)}
		w.users[name] = u
		f.Must(os.MkdirAll(filepath.Join(f.Files, "global", name), 0o755))
		f.Must(os.Chown(filepath.Join(f.Files, "global", name), uids[name], uids[name]))
		w.startJob(u)
	}
	return w
}

// startRabbit starts the rabbit.
func (w *world) startRabbit() {
	var err error
	w.rabbit, err = w.Lab.StartRabbit(w.Cluster, w.Rabbit, map[string]string{
		w.MountBase: filepath.Join(w.Files, "storage"), fixture.Global: filepath.Join(w.Files, "global"),
	}, "--fault", "*/slow/* rate=1k", "--fault", "*/broken/* exit=3", "--fault", "*/invalid/* invalid=chaos")
	w.Must(err)
	w.setRules()
}

// held is the rule for the copies that the rabbit does not start until the faults end.
const held = "*/held/* hold=true"

// setRules writes the rules of the rabbit.
func (w *world) setRules(rules ...string) {
	w.rules = rules
	w.Must(w.rabbit.Faults(append(rules, held)...))
}

// dial returns a client of a user. made gets its connections.
func (w *world) dial(name string, made func(net.Conn)) *grpc.ClientConn {
	c, err := grpc.NewClient("passthrough:///"+w.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 100 * time.Millisecond}, MinConnectTimeout: w.Patience}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			conn, err := lab.DialAs(w.Socket, uids[name], uids[name])
			if err == nil && made != nil {
				made(conn)
			}
			return conn, err
		}))
	w.Must(err)
	return c
}

// startJob creates the job of a user, with a file to copy.
func (w *world) startJob(u *user) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.job != nil {
		return
	}
	w.jobs++
	name := fmt.Sprintf("%s-%d-%s", u.name, w.jobs, w.Node)
	w.history.jobStarts(name, u.name)
	j := w.Job(name, uids[u.name], 0)
	storage := filepath.Join(w.Files, "storage", strings.TrimPrefix(j.OnRabbit(0), w.MountBase))
	w.Must(os.MkdirAll(storage, 0o755))
	w.Must(os.WriteFile(filepath.Join(storage, "out"), []byte(strings.Repeat("x", 3<<10)), 0o644))
	u.job, u.names, u.keyed = j, nil, nil
}

// endJob ends the job of a user like the workload manager: the workflow leaves PreRun, and its
// movements, mounts and the workflow itself are deleted.
func (w *world) endJob(u *user) {
	u.mu.Lock()
	j := u.job
	u.job, u.names, u.keyed = nil, nil, nil
	u.mu.Unlock()
	if j == nil {
		return
	}
	ctx, cancel := context.WithTimeout(w.tb.Context(), chaos.Patience)
	defer cancel()
	w.history.jobEnds(j.Name)
	_, err := w.Cluster.Patch(ctx, "Workflow", "default", j.Name, lab.Object{"spec": map[string]any{"desiredState": "PostRun"}, "status": map[string]any{"state": "PostRun"}})
	w.Must(err)
	w.history.jobEnded(j.Name)
	for _, node := range []string{w.Node, w.Rabbit} {
		w.Must(w.Cluster.Delete(ctx, "ClientMount", node, j.ClientMount(node, 0).Name()))
	}
	w.sweep(ctx, j)
	w.Must(w.Cluster.Delete(ctx, "Workflow", "default", j.Name))
	w.ended = append(w.ended, j)
}

// sweep deletes the movements of a job that has ended.
func (w *world) sweep(ctx context.Context, j *fixture.Job) {
	_, err := w.Cluster.Do(ctx, "DELETE", lab.Path("NnfDataMovement", w.Rabbit, "")+"?labelSelector="+api.LabelOwnerUID+"%3D"+j.UID, "", nil)
	w.Must(err)
}

// run plays the script, ends all faults, and checks that everything becomes as it should be.
func (w *world) run(s chaos.Script) {
	defer w.tidy()
	w.activate()
	w.start("activated")
	w.Ready(w.daemon)
	w.call(&call{user: honest[0], op: "list", job: w.users[honest[0]].job.Name, limit: callLimit}, w.users[honest[0]].conn)
	var err error
	w.base, err = w.daemon.Usage()
	w.Must(err)
	w.attacker = newAttacker(w)
	for _, name := range honest {
		w.polls.Go(func() { w.poll(w.users[name]) })
	}
	w.polls.Go(w.compare)
	for _, st := range s {
		switch {
		case verbs[st.Verb].Fault:
			w.counts.Faults++
		case st.Verb != "wait":
			w.counts.Operations++
		}
		w.history.Note("> " + st.String())
		w.do(st)
		w.alive()
		if w.tb.Failed() || w.history.Failed() {
			break
		}
	}
	w.settle()
}

// pass waits, and meanwhile replaces the service manager.
func (w *world) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		w.alive()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, 20*time.Millisecond)) // the step itself
	}
}

// poll polls the last movement of a user, and lists sometimes, until the end.
func (w *world) poll(u *user) {
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return
		case <-time.After(100 * time.Millisecond): // like a job
		}
		if w.resting.Load() {
			continue
		}
		u.mu.Lock()
		j, name := u.job, ""
		if len(u.names) > 0 {
			name = u.names[len(u.names)-1-n/10%len(u.names)]
		}
		u.mu.Unlock()
		switch {
		case j != nil && n%10 == 0:
			w.call(&call{user: u.name, op: "list", job: j.Name, limit: callLimit, quiet: true}, u.conn)
		case j != nil && name != "":
			w.call(&call{user: u.name, op: "status", job: j.Name, name: name, limit: callLimit, quiet: true}, u.conn)
		}
	}
}

// compare measures requests to the API server without the daemon, until the end.
func (w *world) compare() {
	for {
		select {
		case <-w.stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
		since := time.Now()
		w.history.asks(since)
		if _, err := w.Cluster.Get(w.tb.Context(), "SystemConfiguration", "default", w.System); err == nil {
			w.history.compare(since, time.Since(since))
		}
	}
}

// do does one step.
func (w *world) do(st chaos.Step) {
	a := append(slices.Clone(st.Args), "", "", "")
	u := w.users[a[0]]
	switch st.Verb {
	case "create":
		w.create(u, a[1], false)
	case "repeat":
		w.create(u, "keyed", true)
	case "status":
		c := &call{op: "status", wait: int64(chaos.Number(a[2])), limit: callLimit}
		if c.wait != 0 {
			c.limit += time.Duration(max(c.wait, 0)) * time.Second
		}
		if c.wait < 0 {
			c.limit = endless
		}
		w.callOf(u, a[1], c)
	case "cancel", "delete":
		w.callOf(u, a[1], &call{op: st.Verb, limit: callLimit})
	case "cancel-delete":
		w.callOf(u, a[1], &call{op: "cancel", limit: callLimit}, &call{op: "delete", limit: callLimit})
	case "list":
		w.callOf(u, "", &call{op: "list", limit: callLimit})
	case "peek":
		if a[0] != a[1] {
			w.peek(u, w.users[a[1]], a[2])
		}
	case "vanish":
		w.vanish(u, a[1], time.Duration(chaos.Number(a[2]))*time.Millisecond)
	case "job":
		if a[1] == "end" {
			w.endJob(u)
		} else {
			w.startJob(u)
		}
	case "wait":
		w.pass(time.Duration(chaos.Number(a[0])) * time.Millisecond)
	case "attack":
		w.attacker.start(w, a[0])
	case "rest":
		w.resting.Store(true)
		w.pass(time.Duration(chaos.Number(a[0])) * time.Millisecond)
		w.resting.Store(false)
	case "again", "term":
		if w.daemon != nil && !w.stopped {
			w.terminate()
			if st.Verb == "again" {
				w.start(map[bool]string{true: "activated", false: "own"}[w.listener != nil])
			}
		}
	case "kill":
		w.kill()
	case "stop":
		if w.daemon != nil && !w.stopped {
			w.down()
			_ = w.daemon.Signal(unix.SIGSTOP)
			w.stopped = true
		}
	case "cont":
		w.cont()
	case "start", "start-as":
		if w.daemon == nil {
			w.start(a[0])
		}
	case "rabbit":
		w.disturbRabbit(a[0])
	case "network", "answer", "cut", "delay", "server":
		chaos.DoServerFault(w.tb, w.Fixture, st)
	case "token":
		w.changeToken(a[0])
	case "state":
		w.state(a[0])
	case "clear":
		w.clear()
	}
}

// create creates a movement; again repeats the last keyed creation.
func (w *world) create(u *user, kind string, again bool) {
	u.mu.Lock()
	j, r, number := u.job, u.keyed, u.last
	u.mu.Unlock()
	if j == nil || again && r == nil {
		return
	}
	if !again {
		number = int(w.number.Add(1))
		r = requestFor(j, u.name, kind, number)
	}
	if kind == "keyed" {
		u.mu.Lock()
		if u.job == j {
			u.keyed, u.last = r, number
		}
		u.mu.Unlock()
	}
	w.async(u, func() {
		for range 3 { // a client with a key repeats a call without a response
			c := &call{user: u.name, op: "create", job: j.Name, number: number, limit: callLimit, bad: kind == "bad"}
			w.invoke(c, u.conn, func(ctx context.Context, client pb.DataMoverClient) error {
				if kind == "keyed" {
					ctx = metadata.AppendToOutgoingContext(ctx, server.KeyMetadata, fmt.Sprintf("key-%d", number))
				}
				a, err := client.Create(ctx, r)
				c.result, c.name, c.message = a.GetStatus().String(), a.GetUid(), a.GetMessage()
				return err
			})
			if c.code == codes.OK && c.result == "SUCCESS" {
				u.mu.Lock()
				if u.job == j && !slices.Contains(u.names, c.name) {
					u.names = append(u.names, c.name)
				}
				u.mu.Unlock()
			}
			if kind != "keyed" || c.code == codes.OK {
				return
			}
		}
	})
}

// requestFor returns a request of a kind.
func requestFor(j *fixture.Job, user, kind string, number int) *pb.DataMovementCreateRequest {
	r := j.Request("/out", destination(user, kind, number))
	switch kind {
	case "dry", "keyed", "held":
		r.Dryrun = true
	case "stdout":
		r.StoreStdout, r.LogStdout = true, true
	case "options":
		r.Dryrun, r.DcpOptions, r.MpirunOptions, r.Slots, r.MaxSlots, r.Profile = true, "--chunksize 1M --progress 2", "--np 2", 4, 8, "default"
	case "bad":
		switch number % 4 {
		case 0:
			r.Source = "/etc/passwd"
		case 1:
			r.Destination += "$(id)"
		case 2:
			r.Profile = "no-such-profile"
		default:
			r.DcpOptions = "--no-such-option"
		}
	}
	return r
}

// async makes calls of a user in the background, unless too many are in progress.
func (w *world) async(u *user, f func()) {
	if u.calls.Add(1) > concurrent {
		u.calls.Add(-1)
		return
	}
	w.calls.Go(func() {
		defer u.calls.Add(-1)
		f()
	})
}

// callOf makes calls one after another, with one of the user's last movements.
func (w *world) callOf(u *user, place string, calls ...*call) {
	u.mu.Lock()
	j, i := u.job, len(u.names)-1-chaos.Number(place)
	name := ""
	if i >= 0 {
		name = u.names[i]
	}
	u.mu.Unlock()
	if j == nil || name == "" && place != "" {
		return
	}
	w.async(u, func() {
		for _, c := range calls {
			c.user, c.job = u.name, j.Name
			if place != "" {
				c.name = name
			}
			w.call(c, u.conn)
		}
	})
}

// peek makes a call with a movement of another user.
func (w *world) peek(u, other *user, op string) {
	other.mu.Lock()
	name := ""
	if len(other.names) > 0 {
		name = other.names[len(other.names)-1]
	}
	other.mu.Unlock()
	if name != "" {
		w.async(u, func() { w.callAs(&call{user: u.name, op: "peek", name: name, limit: callLimit}, op, u.conn) })
	}
}

// vanish makes a call on a connection of its own, which is closed after d like that of a client that is
// killed.
func (w *world) vanish(u *user, what string, d time.Duration) {
	u.mu.Lock()
	j, name := u.job, ""
	if len(u.names) > 0 {
		name = u.names[len(u.names)-1]
	}
	u.mu.Unlock()
	if j == nil || what == "wait" && name == "" {
		return
	}
	made := make(chan net.Conn, 16)
	conn := w.dial(u.name, func(c net.Conn) {
		select {
		case made <- c:
		default:
		}
	})
	w.async(u, func() {
		defer conn.Close()
		defer time.AfterFunc(d, func() {
			select {
			case c := <-made:
				c.Close()
			default:
			}
			conn.Close()
		}).Stop()
		c := &call{user: u.name, op: "list", job: j.Name, limit: callLimit, cut: true}
		switch what {
		case "create":
			c.op, c.number = "create", int(w.number.Add(1))
			w.invoke(c, conn, func(ctx context.Context, client pb.DataMoverClient) error {
				a, err := client.Create(ctx, requestFor(j, u.name, "dry", c.number))
				c.result, c.name, c.message = a.GetStatus().String(), a.GetUid(), a.GetMessage()
				return err
			})
			return
		case "wait":
			c.op, c.name, c.wait, c.limit = "status", name, -1, endless
		}
		w.call(c, conn)
	})
}

// call makes a call and records it.
func (w *world) call(c *call, conn *grpc.ClientConn) { w.callAs(c, c.op, conn) }

// callAs makes a call with the operation op.
func (w *world) callAs(c *call, op string, conn *grpc.ClientConn) {
	ref := &pb.DataMovementWorkflow{Name: c.job, Namespace: "default"}
	if c.op == "peek" {
		ref = nil
	}
	w.invoke(c, conn, func(ctx context.Context, client pb.DataMoverClient) (err error) {
		switch op {
		case "status":
			var a *pb.DataMovementStatusResponse
			a, err = client.Status(ctx, &pb.DataMovementStatusRequest{Workflow: ref, Uid: c.name, MaxWaitTime: c.wait})
			c.state, c.result, c.message = a.GetState().String(), a.GetStatus().String(), a.GetMessage()
		case "cancel":
			var a *pb.DataMovementCancelResponse
			a, err = client.Cancel(ctx, &pb.DataMovementCancelRequest{Workflow: ref, Uid: c.name})
			c.result, c.message = a.GetStatus().String(), a.GetMessage()
		case "delete":
			var a *pb.DataMovementDeleteResponse
			a, err = client.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: ref, Uid: c.name})
			c.result, c.message = a.GetStatus().String(), a.GetMessage()
		case "list":
			var a *pb.DataMovementListResponse
			a, err = client.List(ctx, &pb.DataMovementListRequest{Workflow: ref})
			c.names = a.GetUids()
		}
		return err
	})
}

// invoke records a call that f makes.
func (w *world) invoke(c *call, conn *grpc.ClientConn, f func(context.Context, pb.DataMoverClient) error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	defer cancel()
	w.history.starts(c)
	err := f(ctx, pb.NewDataMoverClient(conn))
	if err != nil {
		c.message = status.Convert(err).Message()
	}
	c.code = status.Code(err)
	w.history.ends(c)
}

// activate creates the socket of the service manager.
func (w *world) activate() {
	_ = os.Remove(w.Socket) // of a killed daemon
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.Socket, Net: "unix"})
	w.Must(err)
	l.SetUnlinkOnClose(false)
	w.Must(os.Chmod(w.Socket, 0o666))
	w.listener, err = l.File()
	w.Must(err)
	w.Must(l.Close())
}

// deactivate closes the socket of the service manager.
func (w *world) deactivate() {
	if w.listener != nil {
		w.listener.Close()
		w.listener = nil
		_ = os.Remove(w.Socket)
	}
}

// start starts the daemon.
func (w *world) start(how string) {
	config := []string{
		"[kubernetes]", fmt.Sprintf("request_timeout = %q", requestTimeout), map[bool]string{true: "qps = 10\nburst = 10"}[how == "few"],
		"[limits]", "creates_per_second = 5", "create_burst = 25", "movements_per_user = 60",
		"[daemon]", `shutdown_timeout = "5s"`, `idle_timeout = "500ms"`,
		"[options]", map[bool]string{true: "lookup_expiry = \"0s\"\n[access]\nlist_workflow = true"}[how == "lookup"],
	}
	spec := lab.Spec{Program: "nnf-dm"}
	w.limited = false
	if n, few := strings.CutPrefix(how, "nofile="); few {
		spec.Wrap = []string{"prlimit", "--nofile=" + n + ":" + n}
		w.limited = true
	}
	if how == "activated" || how == "lookup" {
		if w.listener == nil {
			w.activate()
		}
		spec.Listen = w.listener
	} else {
		w.deactivate()
	}
	spec.Args = []string{w.Settings(config...)}
	w.daemon = w.Launch(spec)
	w.daemons = append(w.daemons, w.daemon)
	w.started, w.stopped, w.restart = time.Now(), false, false
	w.excused = w.limited || w.broken || w.token == "empty"
	if w.over != nil {
		w.over()
		w.over = nil
	}
}

// down marks that the daemon does not run, until it is started or resumed.
func (w *world) down() {
	if w.over == nil {
		w.over = w.history.disturb()
	}
}

func (w *world) kill() {
	if w.daemon == nil {
		return
	}
	w.counts.Kills++
	w.down()
	w.daemon.Kill9()
	w.daemon, w.stopped = nil, false
}

func (w *world) terminate() {
	w.down()
	chaos.Terminate(w.tb, w.daemon, w.started, w.excused)
	w.daemon = nil
}

func (w *world) cont() {
	if w.daemon != nil && w.stopped {
		_ = w.daemon.Signal(unix.SIGCONT)
		w.started, w.stopped = time.Now(), false
		if w.over != nil {
			w.over()
			w.over = nil
		}
	}
}

// alive starts a daemon again that has exited, like systemd, and one that a client needs. It may exit
// only when it is idle or cannot work.
func (w *world) alive() {
	if w.daemon != nil {
		select {
		case <-w.daemon.Done():
		default:
			return
		}
		w.down()
		code, err := w.daemon.Wait(w.tb.Context())
		idle := code == 0 && w.listener != nil && slices.ContainsFunc(w.daemon.Log(), func(l lab.LogLine) bool { return l.Has("idle, exiting") })
		if err != nil || !idle && (code != 1 || !w.excused) {
			w.tb.Errorf("the daemon has exited: code %d, %v", code, err)
		}
		w.history.Note(fmt.Sprintf("the daemon has exited with code %d", code))
		w.daemon = nil
		if !idle {
			w.earliest, w.restart = time.Now().Add(200*time.Millisecond), w.listener == nil
		}
	}
	if w.daemon == nil && w.restart && time.Now().After(w.earliest) {
		w.start("own")
	}
	if w.daemon == nil && w.listener != nil && time.Now().After(w.earliest) {
		p := []unix.PollFd{{Fd: int32(w.listener.Fd()), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 0); n > 0 {
			w.start("activated")
		}
	}
}

// disturbRabbit makes the rabbit slow, or stops it.
func (w *world) disturbRabbit(how string) {
	switch how {
	case "hold":
		w.setRules(append(w.rules, "* hold=true")...)
	case "slow":
		w.setRules(append(w.rules, "* delay=2s")...)
	case "minor":
		w.setRules(append(w.rules, "* minor=2")...)
	case "storm":
		w.setRules(append(w.rules, "* storm=20")...)
	case "die":
		w.setRules(append(w.rules, "*/slow/* die=500ms")...)
	case "pause", "resume":
		w.pauseRabbit(how == "pause")
	case "restart":
		w.pauseRabbit(false)
		w.Must(w.rabbit.Stop())
		w.startRabbit()
	}
}

func (w *world) pauseRabbit(yes bool) {
	s := unix.SIGCONT
	if yes {
		s = unix.SIGSTOP
	}
	w.paused = yes
	w.Must(w.rabbit.Signal(s))
}

// changeToken revokes the token, or replaces it.
func (w *world) changeToken(how string) {
	switch how {
	case "bad", "empty":
		w.token, w.excused = how, true // it may be about to read it
		w.Write("token", []byte(map[string]string{"bad": "chaos"}[how]))
	case "revoke":
		if w.token != "revoked" {
			w.token = "revoked"
			ctx, cancel := context.WithTimeout(w.tb.Context(), chaos.Patience)
			defer cancel()
			if err := w.Cluster.Delete(ctx, "Secret", "nnf-dm-system", fmt.Sprintf("%s-%d", w.Node, w.tokens)); err != nil && !lab.IsNotFound(err) {
				w.tb.Error(err)
			}
		}
	case "new":
		w.tokens++
		w.Write("token", w.account.NewToken(strconv.Itoa(w.tokens)))
		w.token = ""
	}
}

// state fills the state directory, or makes it read-only.
func (w *world) state(how string) {
	w.broken = how != "usual"
	w.excused = w.excused || w.broken
	chaos.LimitDirectory(w.tb, w.State("nnf-dm"), "64k", how)
}

// clear ends the faults of connections, of the rabbit, the token and the state directory.
func (w *world) clear() {
	w.Proxy.Clear()
	w.Must(w.Proxy.Accept())
	w.pauseRabbit(false)
	w.setRules()
	if w.token != "" {
		w.changeToken("new")
	}
	w.state("usual")
}

// settle ends all faults. Then everything must become as it should be: each accepted request gets its
// result, and after the deletion of all nothing is left.
func (w *world) settle() {
	if w.tb.Failed() || w.history.Failed() {
		return
	}
	w.history.Note("settle")
	w.clear()
	w.Must(w.rabbit.Faults()) // those that are held too
	w.cont()
	if w.daemon != nil && w.limited {
		w.terminate()
	}
	w.alive()
	if w.daemon == nil {
		w.start("activated")
	}
	since := time.Now()
	ctx, cancel := context.WithTimeout(w.tb.Context(), chaos.Patience)
	defer cancel()
	close(w.stop)
	w.await(ctx, "the calls", func() { w.polls.Wait(); w.calls.Wait() })
	w.attacker.stop(w)
	if w.tb.Failed() {
		return
	}
	var users sync.WaitGroup
	for _, name := range honest {
		users.Go(func() { w.finishUser(ctx, w.users[name]) })
	}
	w.await(ctx, "the results of all users", users.Wait)
	w.counts.Slowest = time.Since(since)
	if w.tb.Failed() || w.history.Failed() {
		return
	}
	for _, u := range w.users {
		w.endJob(u)
	}
	w.nothingLeft(ctx)
	w.history.finish()
	w.quiet(ctx)
	w.terminate()
}

// await calls f in the background, and meanwhile replaces the service manager.
func (w *world) await(ctx context.Context, what string, f func()) {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			w.tb.Errorf("%s have not ended %v after the end of all faults", what, chaos.Patience)
			return
		case <-time.After(20 * time.Millisecond):
			w.alive()
		}
	}
}

// finishUser waits for the results of all movements of a user, and deletes them.
func (w *world) finishUser(ctx context.Context, u *user) {
	if u.job == nil {
		return
	}
	try := func(c *call, ok func() bool) {
		for {
			c.user, c.job, c.limit = u.name, u.job.Name, chaos.Patience
			w.call(c, u.conn)
			if c.code == codes.OK && ok() {
				return
			}
			if kube.Pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
				w.history.Wrong("after the end of all faults: %v", c)
				return
			}
		}
	}
	names := w.history.own(u.name, u.job.Name)
	list := &call{op: "list"}
	try(list, func() bool { return true })
	for _, name := range names {
		wait := &call{op: "status", name: name, wait: 30}
		try(wait, func() bool { return wait.state == "COMPLETED" || wait.result == "NOT_FOUND" })
	}
	for _, name := range list.names {
		remove := &call{op: "delete", name: name}
		try(remove, func() bool { return remove.result == "SUCCESS" || remove.result == "NOT_FOUND" })
	}
}

// nothingLeft waits until no movement is left.
func (w *world) nothingLeft(ctx context.Context) {
	for {
		for _, j := range w.ended { // one that was created as its job ended
			w.sweep(ctx, j)
		}
		list, err := w.Cluster.Do(ctx, "GET", lab.Path("NnfDataMovement", w.Rabbit, ""), "", nil)
		items, _ := list["items"].([]any)
		if err == nil && len(items) == 0 {
			return
		}
		if kube.Pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			w.tb.Errorf("left behind: %v, %v", items, err)
			return
		}
	}
}

// quiet checks that the daemon has as many descriptors and threads as at the beginning when its clients
// are gone.
func (w *world) quiet(ctx context.Context) {
	for _, u := range w.users {
		u.conn.Close()
	}
	for {
		w.alive()
		if w.daemon == nil { // it was idle
			w.start("activated")
			return
		}
		now, err := w.daemon.Usage()
		if err == nil && now.Files <= w.base.Files && now.Threads <= w.base.Threads+8 {
			return
		}
		if kube.Pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			w.tb.Errorf("the daemon had %d descriptors and %d threads, and has %d and %d: %v", w.base.Files, w.base.Threads, now.Files, now.Threads, err)
			return
		}
	}
}

// latencies are those of the calls that must be fast, of all worlds.
var latencies []time.Duration

// tidy ends everything of the world, after a failure too, and reports what the history has found.
func (w *world) tidy() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.cont()
	w.kill()
	w.deactivate()
	w.attacker.kill()
	for _, u := range w.users {
		u.conn.Close()
	}
	w.polls.Wait()
	w.calls.Wait()
	w.follower()
	w.follow.Wait()
	w.counts.Checks += w.history.Checks()
	latencies = append(latencies, w.history.times...)
	for _, problem := range w.history.Problems() {
		w.tb.Error(problem)
	}
	if n := w.history.unchecked; n > 0 {
		w.tb.Log(n, " responses could not be compared")
	}
	if w.tb.Failed() {
		w.tb.Log("the history:\n" + w.history.String())
	}
	w.Proxy.Clear()
	_ = w.Proxy.Accept()
	w.pauseRabbit(false)
	if err := w.rabbit.Stop(); err != nil {
		w.tb.Error("the rabbit: ", err)
	}
	for _, d := range w.daemons {
		d.Kill9() // so that its exit code does not count
	}
	_ = unix.Mount("", w.State("nnf-dm"), "", unix.MS_REMOUNT, "size=64k")
}
