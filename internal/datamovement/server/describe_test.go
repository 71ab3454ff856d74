package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

func described(t *testing.T, s *Service) *v2.DescribeResponse {
	t.Helper()
	d, err := s.Describe(t.Context(), user(1001), job7)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDescribe(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		c.systems = []string{"/lus/other/", "/lus/global", "not absolute", "/"}
		created(t, s)
		kube.Pause(t.Context(), time.Millisecond) // the creation's data is older than the call
		c.requests()
		d := described(t, s)
		if d.Node != node || d.State != "PreRun" || d.Status != "Completed" || d.Error != nil || d.StorageError != nil || d.DestinationsError != nil {
			t.Errorf("%v", d)
		}
		if len(d.Storage) != 1 || !proto.Equal(d.Storage[0], &v2.Storage{Path: mount0, Type: "gfs2", Ready: true}) {
			t.Errorf("storage %v", d.Storage)
		}
		if len(d.Destinations) != 2 || d.Destinations[0].Path != "/lus/global" || d.Destinations[1].Path != "/lus/other" {
			t.Errorf("destinations %v", d.Destinations)
		}
		if l := d.Limits; l.Movements != 100 || l.GetMovementsUsed() != 1 || l.GetMovementBytesUsed() < 1024 || l.CreateBurst != 20 || l.BatchSize != 5 || l.MaxWait.AsDuration().Hours() != 1 {
			t.Errorf("limits %v", d.Limits)
		}
		// The workflow and the mounts come from the latest state.
		got := c.requests()
		for _, line := range []string{"get workflows default/job7", "list clientmounts " + node} {
			if !slices.Contains(got, line) {
				t.Errorf("no request %q in %q", line, got)
			}
		}
		if len(got) > 5 {
			t.Errorf("%d requests: %q", len(got), got)
		}
		if log.count("refused") != 0 {
			t.Error("a description was recorded as refused")
		}
	})
}

// The requests to the API server, and the error, are those of a workflow that does not exist.
func TestDescribeForeign(t *testing.T) {
	r := startServer(t)
	r.uid.Store(1002)
	m := v2.NewDataMoverClient(r.dial(t))
	ask := func(name string) (answer string, requests []string) {
		t.Helper()
		r.cluster.requests()
		d, err := m.Describe(t.Context(), &v2.DescribeRequest{Workflow: &v2.Workflow{Name: name, Namespace: "default"}})
		if d != nil {
			t.Errorf("%s is described: %v", name, d)
		}
		s, err := proto.Marshal(status.Convert(err).Proto())
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(s), name, "NAME"), r.cluster.requests()
	}
	ask("warm-up") // finds out the served version
	foreign, asked := ask("job7")
	missing, alike := ask("jobx")
	if foreign != missing || !strings.Contains(missing, "could not find workflow") {
		t.Errorf("%q and %q", foreign, missing)
	}
	if fmt.Sprint(asked) != "[get workflows default/job7]" || fmt.Sprint(alike) != "[get workflows default/jobx]" {
		t.Errorf("requests %q and %q", asked, alike)
	}
	if n := r.log.count("hidden: the workflow belongs to another user"); n != 1 {
		t.Errorf("%d audit records", n)
	}
}

// The site's rules are those of Create.
func TestDescribeDenied(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		c.changeWorkflow(func(w *dws.Workflow) { w.Spec.GroupID = 200 })
		_, err := s.Describe(t.Context(), user(1001), job7)
		_, same := s.Create(t.Context(), user(1001), usualRequest)
		if f := datamovement.Explain(err); f == nil || f.Reason != v2.ErrorReason_ACCESS_DENIED || f.Error() != same.Error() {
			t.Errorf("%v, Create: %v", err, same)
		}
	})
}

// In a state that allows no copies, the description has the reason and no storage. It is not
// cached: a creation looks at the state again.
func TestDescribeState(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		c.changeWorkflow(func(w *dws.Workflow) { w.Status.State, w.Status.Status = "Setup", strings.Repeat("x", 5000) })
		d := described(t, s)
		if d.State != "Setup" || len(d.Status) > 600 || d.Error.GetReason() != v2.ErrorReason_WORKFLOW_STATE || len(d.Storage) != 0 || len(d.Destinations) != 1 || d.Limits.MovementsUsed == nil {
			t.Errorf("%v", d)
		}
		c.changeWorkflow(func(w *dws.Workflow) { w.Status.State, w.Status.Status = dws.StatePreRun, dws.StatusCompleted })
		created(t, s)
	})
}

// After each change, the description allows a copy from the mount if and only if Create does.
func TestDescribeAgreesWithCreate(t *testing.T) {
	all := map[string]func(*cluster){
		"nothing":            func(*cluster) {},
		"an xfs file system": func(c *cluster) { c.changeMount(0, func(m *dws.ClientMount) { m.Spec.Mounts[0].Type = dws.TypeXFS }) },
		"no device reference": func(c *cluster) {
			c.changeMount(0, func(m *dws.ClientMount) { m.Spec.Mounts[0].Device.DeviceReference = nil })
		},
		"the rabbit is not mounted": func(c *cluster) { c.changeMount(1, func(m *dws.ClientMount) { m.Status.Mounts[0].Ready = false }) },
		"no rabbit":                 func(c *cluster) { c.system = new(dws.SystemConfiguration) },
	}
	for name, change := range changes {
		all[name] = change
	}
	for name, change := range all {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
				change(c)
				_, want := s.Create(t.Context(), user(1001), usualRequest)
				d, err := s.Describe(t.Context(), user(1001), job7)
				can := err == nil && d.Error == nil && slices.ContainsFunc(d.Storage, func(m *v2.Storage) bool { return m.Error == nil })
				if can != (want == nil) {
					t.Errorf("%v, %v; Create: %v", d, err, want)
				}
				if name == "nothing" && !can {
					t.Errorf("cannot copy: %v", d)
				}
			})
		})
	}
}

// A part that the API server does not answer has an error; the others are complete.
func TestDescribePartial(t *testing.T) {
	for request, check := range map[string]func(*v2.DescribeResponse) bool{
		"list clientmounts":        func(d *v2.DescribeResponse) bool { return d.StorageError != nil && len(d.Destinations) == 1 },
		"list lustrefilesystems":   func(d *v2.DescribeResponse) bool { return d.DestinationsError != nil && d.Storage[0].Error == nil },
		"list rabbit-01 movements": func(d *v2.DescribeResponse) bool { return d.Limits.MovementsUsed == nil && d.Storage[0].Error == nil },
		"get systemconfigurations": func(d *v2.DescribeResponse) bool { return d.Storage[0].Ready && d.Storage[0].Error != nil },
	} {
		bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
			c.refuse(request, apiError(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable))
			if d := described(t, s); !check(d) {
				t.Errorf("%s: %v", request, d)
			}
			parts := 1
			if request == "get systemconfigurations" { // storage, and the movements in the rabbit's namespace
				parts = 2
			}
			if n := log.count("a request could not be served"); n != parts {
				t.Errorf("%s: %d records, want %d", request, n, parts)
			}
		})
	}
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		c.refuse("get workflows", apiError(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable))
		_, err := s.Describe(t.Context(), user(1001), job7)
		if f := datamovement.Explain(err); f == nil || f.Reason != v2.ErrorReason_UNAVAILABLE || strings.Contains(f.Error(), "Could not find workflow") {
			t.Error(err)
		}
	})
}

// The size of a response is limited, whatever the objects contain.
func TestDescribeIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		c.mounts = nil
		long := strings.Repeat("/"+strings.Repeat("x", 200), 19)
		for i := range 300 {
			c.mount(node, fmt.Sprintf("/mnt/%03d%s", i, long), strings.Repeat("y", 5000))
		}
		c.mount(node, "/mnt/"+strings.Repeat("$NO_SUCH_VARIABLE", 1000), dws.TypeGFS2)
		c.systems = nil
		for i := range 300 {
			c.systems = append(c.systems, fmt.Sprintf("/lus/%03d%s", i, long))
		}
		d := described(t, s)
		if len(d.Storage) != 64 || d.StorageOmitted != 301-64 || len(d.Destinations) != 64 || d.DestinationsOmitted != 300-64 || proto.Size(d) > 400<<10 {
			t.Errorf("%d mounts and %d more, %d destinations and %d more, %d bytes", len(d.Storage), d.StorageOmitted, len(d.Destinations), d.DestinationsOmitted, proto.Size(d))
		}
		if n := len(c.requests()); n > 200 {
			t.Errorf("%d requests", n)
		}
	})
}

// A description counts as a creation.
func TestDescribeRate(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
		for range 20 {
			described(t, s)
		}
		_, err := s.Describe(t.Context(), user(1001), job7)
		if f := datamovement.Explain(err); f == nil || f.Reason != v2.ErrorReason_LIMIT_EXCEEDED || f.Field != "limits.creates_per_second" {
			t.Error(err)
		}
		if _, err := s.Describe(t.Context(), user(1002), job7); datamovement.Explain(err).Reason != v2.ErrorReason_WORKFLOW_NOT_FOUND {
			t.Errorf("another user: %v", err)
		}
	})
}

// The limits of the transport are part of the response.
func TestDescribeTransport(t *testing.T) {
	r := startServer(t)
	d, err := v2.NewDataMoverClient(r.dial(t)).Describe(t.Context(), &v2.DescribeRequest{Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}})
	if err != nil || d.Limits.MessageSize != 64<<10 || d.Limits.Memory != testMemory {
		t.Errorf("%v, %v", d, err)
	}
}
