package offload

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// The calls of each known client, in its order and with the fields that it sends. Methods
// are called by their names on the wire, and enumerations are compared by their numbers,
// because those programs are compiled with them.
var clientBehaviours = []behaviour{
	{"the Go client", "8/client-go", both, goClient},
	{"the C++ client", "8/client-cpp 8/lib-cpp", both, cppClient},
	{"the C client", "8/c", both, cClient},
	{"AXL copies", "8/axl 9.14", both, axlCopies},
	{"AXL cancels", "8/axl 9.14", both, axlCancels},
}

// raw calls methods by name.
type raw struct {
	s    *env
	conn *grpc.ClientConn
}

func (s *env) raw() raw { return raw{s, s.connect(alice)} }

func (r raw) call(method string, in, out any) {
	r.s.t.Helper()
	if err := r.conn.Invoke(r.s.ctx(), "/datamovement.DataMover/"+method, in, out); err != nil {
		r.s.t.Fatalf("%s: %v", method, err) // fatal in all these clients
	}
}

func (r raw) version() {
	r.s.t.Helper()
	var v pb.DataMovementVersionResponse
	r.call("Version", new(emptypb.Empty), &v)
	if v.Version == "" || len(v.ApiVersions) != 1 || v.ApiVersions[0] != "1" {
		r.s.t.Errorf("version: %v", &v)
	}
}

func (r raw) create(w *createRequest) string {
	r.s.t.Helper()
	var c pb.DataMovementCreateResponse
	r.call("Create", w, &c)
	if int32(c.Status) != 0 || c.Uid == "" {
		r.s.t.Fatalf("create: %v", &c)
	}
	return c.Uid
}

func (r raw) status(w *pb.DataMovementWorkflow, uid string, wait int64) (state, result int32) {
	r.s.t.Helper()
	var st pb.DataMovementStatusResponse
	r.call("Status", &pb.DataMovementStatusRequest{Workflow: w, Uid: uid, MaxWaitTime: wait}, &st)
	return int32(st.State), int32(st.Status)
}

func (r raw) delete(w *pb.DataMovementWorkflow, uid string) int32 {
	r.s.t.Helper()
	var d pb.DataMovementDeleteResponse
	r.call("Delete", &pb.DataMovementDeleteRequest{Workflow: w, Uid: uid}, &d)
	return int32(d.Status)
}

func (r raw) cancel(w *pb.DataMovementWorkflow, uid string) int32 {
	r.s.t.Helper()
	var c pb.DataMovementCancelResponse
	r.call("Cancel", &pb.DataMovementCancelRequest{Workflow: w, Uid: uid}, &c)
	return int32(c.Status)
}

func (r raw) list() []string {
	r.s.t.Helper()
	var l pb.DataMovementListResponse
	r.call("List", &pb.DataMovementListRequest{Workflow: r.s.named()}, &l)
	return l.Uids
}

// Concurrent Creates, a loop of Status until COMPLETED, in which FAILED and INVALID are
// fatal in any state, and a Delete of each movement in List.
func goClient(s *env) {
	s.useRabbit()
	source := s.file("out/one", 100)
	r := s.raw()
	r.version()
	uids := make([]string, 4)
	var all sync.WaitGroup
	for i := range uids {
		all.Go(func() {
			var c pb.DataMovementCreateResponse
			if err := r.conn.Invoke(s.ctx(), "/datamovement.DataMover/Create", s.usualRequest(from(source), to(s.target())), &c); err != nil || c.Status != createOK {
				s.t.Errorf("create: %v, %v", &c, err)
			}
			uids[i] = c.Uid
		})
	}
	all.Wait()
	for _, uid := range uids {
		wait.Within(s.t, patience, "the copy's end", func() bool {
			state, result := r.status(s.named(), uid, 1)
			if result == 0 || result == 3 {
				s.t.Fatalf("state %d, status %d: the client exits", state, result)
			}
			return state == 3
		})
	}
	listed := r.list()
	if len(listed) != len(uids) {
		s.t.Errorf("list: %q of %q", listed, uids)
	}
	for _, uid := range listed {
		if st := r.delete(s.named(), uid); st != 2 && st != 1 {
			s.t.Errorf("delete: %d", st)
		}
	}
	wait.Within(s.t, patience, "the rabbit lets them go", func() bool { return len(r.list()) == 0 })
}

// slots and maxSlots are not set, which means none in the host file.
func cppClient(s *env) {
	s.useRabbit()
	r := s.raw()
	r.version()
	uid := r.create(&createRequest{Workflow: s.named(), Source: s.file("out/one", 100), Destination: s.target()})
	for _, field := range []string{"slots", "maxSlots"} {
		if v := s.Movement(uid).At("spec", "userConfig", field); v != float64(0) {
			s.t.Errorf("%s is %v", field, v)
		}
	}
	if l := r.list(); len(l) != 1 || l[0] != uid {
		s.t.Errorf("list: %q", l)
	}
	if state, result := r.status(s.named(), uid, -1); state != 3 || result != 2 {
		s.t.Errorf("state %d, status %d", state, result)
	}
	if st := r.cancel(s.named(), uid); st != 2 {
		s.t.Errorf("cancel: %d", st)
	}
	if st := r.delete(s.named(), uid); st != 2 {
		s.t.Errorf("delete: %d", st)
	}
	if state, result := r.status(s.named(), s.k.prefix+"nope", 0); state != 5 || result != 1 {
		s.t.Errorf("a missing one: state %d, status %d", state, result)
	}
}

// Only Create sends the workflow.
func cClient(s *env) {
	s.useRabbit()
	r := s.raw()
	uid := r.create(&createRequest{Workflow: s.named(), Source: s.file("out/one", 100), Destination: s.target()})
	wait.Within(s.t, patience, "the copy's end", func() bool {
		state, result := r.status(nil, uid, 0)
		if state == 3 && result != 2 {
			s.t.Errorf("status %d", result)
		}
		return state == 3
	})
	if st := r.delete(nil, uid); st != 2 {
		s.t.Errorf("delete: %d", st)
	}
}

// One Create per file, Status with a wait of one second until COMPLETED, no states other
// than these, and a Delete that must succeed.
func axlCopies(s *env) {
	s.useRabbit()
	r := s.raw()
	var uids []string
	for _, name := range []string{"rank_0.ckpt", "rank_1.ckpt", "rank_2.ckpt"} {
		uids = append(uids, r.create(&createRequest{Workflow: s.named(), Source: s.file(name, 4096), Destination: s.target() + name, Slots: -1, MaxSlots: -1}))
	}
	for _, uid := range uids {
		wait.Within(s.t, patience, "the copy's end", func() bool {
			state, result := r.status(s.named(), uid, 1)
			ended := state == 3 && result == 2
			if !ended && state != 0 && state != 1 && state != 2 {
				s.t.Fatalf("state %d, status %d: AXL aborts the program", state, result)
			}
			return ended
		})
		if st := r.delete(s.named(), uid); st != 2 {
			s.t.Fatalf("delete: %d: AXL aborts the program", st)
		}
	}
	if found := s.find("rank_2.ckpt"); len(found) == 0 {
		s.t.Error("nothing was copied")
	}
}

// A Delete immediately after Cancel must succeed, whether the copy has started or not.
func axlCancels(s *env) {
	s.useRabbit()
	r := s.raw()
	source := s.file("slow/rank_0.ckpt", 8<<20)
	for _, started := range []bool{true, false} {
		uid := r.create(&createRequest{Workflow: s.named(), Source: source, Destination: s.target(), Slots: -1, MaxSlots: -1})
		if started {
			wait.Within(s.t, patience, "the copy's start", func() bool {
				state, _ := r.status(s.named(), uid, 1)
				return state == 2
			})
		}
		if st := r.cancel(s.named(), uid); st != 2 && st != 1 {
			s.t.Fatalf("cancel: %d: AXL aborts the program", st)
		}
		if st := r.delete(s.named(), uid); st != 2 {
			s.t.Fatalf("delete: %d: AXL aborts the program", st)
		}
	}
}
