package offload

import (
	"strings"

	"google.golang.org/grpc/codes"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

var invalidPromises = []promise{
	{"nothing for a shell gets through", "9.1", both, shellText},
	{"only harmless options", "9.1", one, knownOptions},
	{"options can be switched off, or all allowed", "9.1", one, optionPolicies},
	{"slots have a range", "9.29", one, slotRange},
}

// invalid asks by both versions, and wants to be told which field is wrong.
func (s *env) invalid(field, value string, change func(*wish)) {
	s.t.Helper()
	w := s.wish(change)
	r, err := s.me.Create(s.ctx(), w)
	if err != nil || r.Status != createInvalid || r.Uid != "" || !strings.Contains(r.Message, field) {
		s.t.Errorf("%s %q: %v, %v, want INVALID that names the field", field, value, r, err)
	}
	b, err := s.me2.CreateBatch(s.ctx(), &pb2.CreateBatchRequest{
		Workflow: s.named2(), Pairs: []*pb2.CopyPair{{Source: w.Source, Destination: w.Destination}},
		Options: &pb2.CopyOptions{Profile: w.Profile, DcpOptions: w.DcpOptions, MpirunOptions: w.MpirunOptions, Slots: &w.Slots, MaxSlots: &w.MaxSlots},
	})
	if field == "source" || field == "destination" { // what is wrong with one pair is in its result
		if e := b.GetResults()[0].GetError(); err != nil || e.GetReason() != pb2.ErrorReason_INVALID_FIELD || e.GetMetadata()["field"] != field {
			s.t.Errorf("%s %q in version 2: %v, %v", field, value, b, err)
		}
		return
	}
	s.code(field+" in version 2", err, codes.InvalidArgument, pb2.ErrorReason_INVALID_FIELD)
}

func shellText(s *env) {
	s.usual()
	set := map[string]func(*wish, string){
		"source":        func(w *wish, v string) { w.Source = s.path + "/" + v },
		"destination":   func(w *wish, v string) { w.Destination = global + "/" + v },
		"dcpOptions":    func(w *wish, v string) { w.DcpOptions = "-b " + v },
		"mpirunOptions": func(w *wish, v string) { w.MpirunOptions = "-np " + v },
		"profile":       func(w *wish, v string) { w.Profile = "a" + v },
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
				continue // the protocol itself takes UTF-8 only
			}
			s.invalid(field, text, func(w *wish) { put(w, text) })
		}
	}
	if n := s.Movements(api.LabelOwnerName, s.job); n != 0 {
		s.t.Errorf("%d movements were made", n)
	}
}

func knownOptions(s *env) {
	s.usual()
	for _, ok := range []string{"--preserve", "-b 4MB", "--chunksize=1G", "--xattrs none -pv", "--progress 10"} {
		s.create(func(w *wish) { w.DcpOptions = ok })
	}
	for _, ok := range []string{"-np 4", "--bind-to core", "--mca btl tcp,self", "-N 2 --oversubscribe"} {
		s.create(func(w *wish) { w.MpirunOptions = ok })
	}
	for _, bad := range []string{"--uid 0", "-U 0", "--gid=0", "--ui 0", "--input /etc/shadow", "/etc/shadow", "--", "--no-such", "-b", "--progress 1 dcp"} {
		s.invalid("dcpOptions", bad, func(w *wish) { w.DcpOptions = bad })
	}
	for _, bad := range []string{"reboot", "-np 1 reboot", "--rankfile /a", "-x LD_PRELOAD=/tmp/a.so", "--host other", "--mca plm_rsh_agent /tmp/a", ":", "mpirun", "--wdir /"} {
		s.invalid("mpirunOptions", bad, func(w *wish) { w.MpirunOptions = bad })
	}
}

func optionPolicies(s *env) {
	s.config = "[options]\npolicy = \"none\"\n"
	s.usual()
	s.refused(createInvalid, `dcpOptions "-v" is refused: options of dcp are switched off on this system`, func(w *wish) { w.DcpOptions = "-v" })
	s.refused(createInvalid, `mpirunOptions "-v" is refused: options of mpirun are switched off on this system`, func(w *wish) { w.MpirunOptions = "-v" })
	s.create()
	s.reload("[options]\npolicy = \"any\"\n")
	s.create(func(w *wish) { w.DcpOptions = "--strange value" })
	s.invalid("dcpOptions", "any; reboot", func(w *wish) { w.DcpOptions = "any; reboot" })
	s.invalid("dcpOptions", "--uid 0", func(w *wish) { w.DcpOptions = "--uid 0" })
	s.reload("[options]\ndcp = [\"--site=\"]\n")
	s.create(func(w *wish) { w.DcpOptions = "--site here" })
	s.invalid("dcpOptions", "--strange", func(w *wish) { w.DcpOptions = "--strange value" })
}

func slotRange(s *env) {
	s.usual()
	for _, n := range []int32{-2, -1 << 31, 65537, 1<<31 - 1} {
		s.invalid("slots", "", func(w *wish) { w.Slots = n })
		s.invalid("maxSlots", "", func(w *wish) { w.MaxSlots = n })
	}
	s.invalid("maxSlots", "", func(w *wish) { w.Slots, w.MaxSlots = 8, 4 })
}
