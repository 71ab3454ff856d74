package offload

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Short names for constants of the protocol.
const (
	createOK      = pb.DataMovementCreateResponse_SUCCESS
	createFailed  = pb.DataMovementCreateResponse_FAILED
	createInvalid = pb.DataMovementCreateResponse_INVALID

	pending      = pb.DataMovementStatusResponse_PENDING
	starting     = pb.DataMovementStatusResponse_STARTING
	isRunning    = pb.DataMovementStatusResponse_RUNNING
	completed    = pb.DataMovementStatusResponse_COMPLETED
	cancelling   = pb.DataMovementStatusResponse_CANCELLING
	unknownState = pb.DataMovementStatusResponse_UNKNOWN_STATE

	invalid       = pb.DataMovementStatusResponse_INVALID
	notFound      = pb.DataMovementStatusResponse_NOT_FOUND
	success       = pb.DataMovementStatusResponse_SUCCESS
	failed        = pb.DataMovementStatusResponse_FAILED
	cancelled     = pb.DataMovementStatusResponse_CANCELLED
	unknownStatus = pb.DataMovementStatusResponse_UNKNOWN_STATUS

	deleteInvalid  = pb.DataMovementDeleteResponse_INVALID
	deleteNotFound = pb.DataMovementDeleteResponse_NOT_FOUND
	deleteOK       = pb.DataMovementDeleteResponse_SUCCESS
	deleteActive   = pb.DataMovementDeleteResponse_ACTIVE

	cancelInvalid  = pb.DataMovementCancelResponse_INVALID
	cancelNotFound = pb.DataMovementCancelResponse_NOT_FOUND
	cancelOK       = pb.DataMovementCancelResponse_SUCCESS
	cancelFailed   = pb.DataMovementCancelResponse_FAILED
)

type createRequest = pb.DataMovementCreateRequest

// named returns the test's workflow for a request.
func (s *env) named() *pb.DataMovementWorkflow {
	return &pb.DataMovementWorkflow{Name: s.job, Namespace: "default"}
}

func (s *env) named2() *pb2.Workflow { return &pb2.Workflow{Name: s.job, Namespace: "default"} }

// usualRequest returns a usual request with changes.
func (s *env) usualRequest(changes ...func(*createRequest)) *createRequest {
	w := &createRequest{Workflow: s.named(), Source: s.path + "/out/", Destination: global + "/alice/", Slots: -1, MaxSlots: -1}
	for _, f := range changes {
		f(w)
	}
	return w
}

func from(path string) func(*createRequest) { return func(w *createRequest) { w.Source = path } }
func to(path string) func(*createRequest)   { return func(w *createRequest) { w.Destination = path } }

// create creates a movement and fails the test on errors.
func (s *env) create(changes ...func(*createRequest)) string {
	s.t.Helper()
	return s.createAs(s.me, changes...)
}

func (s *env) createAs(c pb.DataMoverClient, changes ...func(*createRequest)) string {
	s.t.Helper()
	r, err := c.Create(s.ctx(), s.usualRequest(changes...))
	if err != nil || r.Status != createOK || r.Uid == "" || r.Message != "" {
		s.t.Fatalf("create: %v, %v", r, err)
	}
	return r.Uid
}

// refused checks that a request is refused, with the complete response.
func (s *env) refused(st pb.DataMovementCreateResponse_Status, message string, changes ...func(*createRequest)) {
	s.t.Helper()
	r, err := s.me.Create(s.ctx(), s.usualRequest(changes...))
	s.answered("create", r, err, &pb.DataMovementCreateResponse{Status: st, Message: s.fill(message)})
}

// answered compares a complete response.
func (s *env) answered(what string, got proto.Message, err error, want proto.Message) {
	s.t.Helper()
	if err != nil || !proto.Equal(got, want) {
		s.t.Errorf("%s:\n got %v, %v\nwant %v", what, got, err, want)
	}
}

// code checks a gRPC error, and in version 2 its reason.
func (s *env) code(what string, err error, want codes.Code, reasons ...pb2.ErrorReason) {
	s.t.Helper()
	if status.Code(err) != want {
		s.t.Errorf("%s: %v, want %s", what, err, want)
	}
	if got, _ := pb2.Reason(err); len(reasons) > 0 && !slices.Contains(reasons, got) {
		s.t.Errorf("%s: the reason is %s, want %v", what, got, reasons)
	}
}

func (s *env) status(uid string, wait int64) *pb.DataMovementStatusResponse {
	s.t.Helper()
	r, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: wait})
	if err != nil {
		s.t.Fatal("status: ", err)
	}
	return r
}

// is waits until Status returns state and status.
func (s *env) is(uid string, state pb.DataMovementStatusResponse_State, st pb.DataMovementStatusResponse_Status) *pb.DataMovementStatusResponse {
	s.t.Helper()
	var r *pb.DataMovementStatusResponse
	wait.Within(s.t, patience, state.String()+" "+st.String(), func() bool {
		r = s.status(uid, 0)
		return r.State == state && r.Status == st
	})
	return r
}

func (s *env) cancels(uid string, want pb.DataMovementCancelResponse_Status) {
	s.t.Helper()
	r, err := s.me.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: s.named(), Uid: uid})
	if err != nil || r.Status != want {
		s.t.Errorf("cancel: %v, %v, want %s", r, err, want)
	}
}

func (s *env) deletes(uid string, want pb.DataMovementDeleteResponse_Status) {
	s.t.Helper()
	r, err := s.me.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Workflow: s.named(), Uid: uid})
	if err != nil || r.Status != want {
		s.t.Errorf("delete: %v, %v, want %s", r, err, want)
	}
}

func (s *env) lists(c pb.DataMoverClient, want ...string) {
	s.t.Helper()
	r, err := c.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()})
	want = slices.Sorted(slices.Values(want))
	if got := slices.Sorted(slices.Values(r.GetUids())); err != nil || !slices.Equal(got, want) {
		s.t.Errorf("list: %q, %v, want %q", got, err, want)
	}
}

// status2 returns the status of one movement in version 2.
func (s *env) status2(uid string) *pb2.MovementStatus {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	stream, err := s.me2.Watch(ctx, &pb2.WatchRequest{Workflow: s.named2(), Uids: []string{uid}})
	s.Must(err)
	r, err := stream.Recv()
	if err != nil || len(r.Movements) != 1 {
		s.t.Fatalf("watch: %v, %v", r, err)
	}
	return r.Movements[0]
}

var invalidBehaviours = []behaviour{
	{"no shell syntax is accepted", "9.1", both, shellText},
	{"only listed options", "9.1", one, knownOptions},
	{"options can be disabled, or all allowed", "9.1", one, optionPolicies},
	{"slots have a range", "9.29", one, slotRange},
}

// invalid checks that both versions refuse a request and name the field.
func (s *env) invalid(field, value string, change func(*createRequest)) {
	s.t.Helper()
	w := s.usualRequest(change)
	r, err := s.me.Create(s.ctx(), w)
	if err != nil || r.Status != createInvalid || r.Uid != "" || !strings.Contains(r.Message, field) {
		s.t.Errorf("%s %q: %v, %v, want INVALID that names the field", field, value, r, err)
	}
	b, err := s.me2.CreateBatch(s.ctx(), &pb2.CreateBatchRequest{
		Workflow: s.named2(), Pairs: []*pb2.CopyPair{{Source: w.Source, Destination: w.Destination}},
		Options: &pb2.CopyOptions{Profile: w.Profile, DcpOptions: w.DcpOptions, MpirunOptions: w.MpirunOptions, Slots: &w.Slots, MaxSlots: &w.MaxSlots},
	})
	if field == "source" || field == "destination" { // errors of a pair are in its result
		if e := b.GetResults()[0].GetError(); err != nil || e.GetReason() != pb2.ErrorReason_INVALID_FIELD || e.GetMetadata()["field"] != field {
			s.t.Errorf("%s %q in version 2: %v, %v", field, value, b, err)
		}
		return
	}
	s.code(field+" in version 2", err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
}

func shellText(s *env) {
	s.usual()
	set := map[string]func(*createRequest, string){
		"source":        func(w *createRequest, v string) { w.Source = s.path + "/" + v },
		"destination":   func(w *createRequest, v string) { w.Destination = global + "/" + v },
		"dcpOptions":    func(w *createRequest, v string) { w.DcpOptions = "-b " + v },
		"mpirunOptions": func(w *createRequest, v string) { w.MpirunOptions = "-np " + v },
		"profile":       func(w *createRequest, v string) { w.Profile = "a" + v },
	}
	texts := []string{"\x00", "\n", "\r", "\t", "\x1b", "\x7f", "\u00a0", "\u2028", "\xff"}
	for _, c := range ";&|$`\"'\\()[]{}<>*?~#!" {
		texts = append(texts, "a"+string(c)+"b")
	}
	texts = append(texts, "$(reboot)", "a b", "`id`")
	for field, put := range set {
		for _, text := range texts {
			if strings.HasSuffix(field, "Options") && text == "a b" {
				continue // options are words
			}
			if text == "\xff" {
				continue // the protocol allows UTF-8 only
			}
			s.invalid(field, text, func(w *createRequest) { put(w, text) })
		}
	}
	if n := s.Movements(api.LabelOwnerName, s.job); n != 0 {
		s.t.Errorf("%d movements were created", n)
	}
}

func knownOptions(s *env) {
	s.usual()
	for _, ok := range []string{"--preserve", "-b 4MB", "--chunksize=1G", "--xattrs none -pv", "--progress 10"} {
		s.create(func(w *createRequest) { w.DcpOptions = ok })
	}
	for _, ok := range []string{"-np 4", "--bind-to core", "--mca btl tcp,self", "-N 2 --oversubscribe"} {
		s.create(func(w *createRequest) { w.MpirunOptions = ok })
	}
	for _, bad := range []string{"--uid 0", "-U 0", "--gid=0", "--ui 0", "--input /etc/shadow", "/etc/shadow", "--", "--no-such", "-b", "--progress 1 dcp"} {
		s.invalid("dcpOptions", bad, func(w *createRequest) { w.DcpOptions = bad })
	}
	for _, bad := range []string{"reboot", "-np 1 reboot", "--rankfile /a", "-x LD_PRELOAD=/tmp/a.so", "--host other", "--mca plm_rsh_agent /tmp/a", ":", "mpirun", "--wdir /"} {
		s.invalid("mpirunOptions", bad, func(w *createRequest) { w.MpirunOptions = bad })
	}
}

func optionPolicies(s *env) {
	s.config = "[options]\npolicy = \"none\"\n"
	s.usual()
	s.refused(createInvalid, `dcpOptions "-v" is refused: options of dcp are disabled on this system`, func(w *createRequest) { w.DcpOptions = "-v" })
	s.refused(createInvalid, `mpirunOptions "-v" is refused: options of mpirun are disabled on this system`, func(w *createRequest) { w.MpirunOptions = "-v" })
	s.create()
	s.reload("[options]\npolicy = \"any\"\n")
	s.create(func(w *createRequest) { w.DcpOptions = "--strange value" })
	s.invalid("dcpOptions", "any; reboot", func(w *createRequest) { w.DcpOptions = "any; reboot" })
	s.invalid("dcpOptions", "--uid 0", func(w *createRequest) { w.DcpOptions = "--uid 0" })
	s.reload("[options]\ndcp = [\"--site=\"]\n")
	s.create(func(w *createRequest) { w.DcpOptions = "--site here" })
	s.invalid("dcpOptions", "--strange", func(w *createRequest) { w.DcpOptions = "--strange value" })
}

func slotRange(s *env) {
	s.usual()
	for _, n := range []int32{-2, -1 << 31, 65537, 1<<31 - 1} {
		s.invalid("slots", "", func(w *createRequest) { w.Slots = n })
		s.invalid("maxSlots", "", func(w *createRequest) { w.MaxSlots = n })
	}
	s.invalid("maxSlots", "", func(w *createRequest) { w.Slots, w.MaxSlots = 8, 4 })
}

var destinationBehaviours = []behaviour{
	{"destinations are in a global file system", "4.2.3/absolute 4.2.3/match 4.2.4 9.7", both, destinations},
}

func destinations(s *env) {
	s.config = uncached
	s.usual()
	n := s.Node
	deep := "/lus/deep-" + n
	for name, root := range map[string]string{"a": deep, "b": deep + "/er/", "c": deep + "/er/est"} {
		s.Apply(fixture.FileSystem(fmt.Sprintf("%.8s", name+n[len(n)-3:]), root))
	}
	of := func(name string) string { return fmt.Sprintf("%.8s", name+n[len(n)-3:]) }
	for _, d := range []struct{ path, system string }{
		{deep + "/x", of("a")}, {deep, of("a")}, {deep + "/", of("a")}, {deep + "/ere", of("a")},
		{deep + "/er", of("b")}, {deep + "/er/", of("b")}, {deep + "/er/x", of("b")},
		{deep + "/er/est/x/", of("c")}, {deep + "/er/estimate", of("b")},
	} {
		o := s.Movement(s.create(to(d.path)))
		s.same("destination", o.String("spec", "destination", "path"), d.path)
		want := ""
		if s.k == lustre {
			want = d.system
		}
		s.same("file system of "+d.path, o.String("spec", "destination", "storageReference", "name"), want)
	}
	for _, path := range []string{"/lus/globally", "/lus", "/", deep + "er"} {
		s.refused(createFailed, s.k.step+"unable to find a LustreFileSystem resource matching "+path, to(path))
	}
	for path, why := range map[string]string{
		"relative/path":              "it must be an absolute path",
		global + "/../../etc/passwd": "it must not contain .. as a component",
	} {
		s.refused(createInvalid, `destination "`+path+`" is refused: `+why, to(path))
	}
	s.refused(createInvalid, "destination is missing", to(""))
}
