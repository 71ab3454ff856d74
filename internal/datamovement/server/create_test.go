package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

var (
	errForbidden = apiError(http.StatusForbidden, metav1.StatusReasonForbidden)
	errInvalid   = apiError(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
	errBroken    = errors.New("broken: secret of the server")
)

// Each step of Create fails with its own text, creates nothing, and sends no
// request of a later step.
func TestCreateFails(t *testing.T) {
	for name, tt := range map[string]struct {
		setUp  func(*cluster)
		change func(*datamovement.Request)
		caller datamovement.Caller
		kind   error
		reason v2.ErrorReason
		text   string
		last   string // last request; empty: none
	}{
		"request without workflow": {change: func(r *datamovement.Request) { r.Workflow = datamovement.WorkflowRef{} }, kind: datamovement.ErrInvalid, reason: v2.ErrorReason_INVALID_FIELD, text: "workflow is missing"},
		"source":                   {change: func(r *datamovement.Request) { r.Source = "out" }, kind: datamovement.ErrInvalid, reason: v2.ErrorReason_INVALID_FIELD, text: "source"},
		"options":                  {change: func(r *datamovement.Request) { r.DCPOptions = "-p; id" }, kind: datamovement.ErrInvalid, reason: v2.ErrorReason_INVALID_FIELD, text: "dcpOptions"},
		"no such workflow":         {change: func(r *datamovement.Request) { r.Workflow.Name = "job8" }, kind: datamovement.ErrNotFound, reason: v2.ErrorReason_WORKFLOW_NOT_FOUND, text: `could not find workflow "default/job8"`, last: "get workflows default/job8"},
		"workflow unreadable":      {setUp: func(c *cluster) { c.refuse("get workflows", errBroken) }, kind: datamovement.ErrUnavailable, reason: v2.ErrorReason_UNAVAILABLE, text: "Could not find workflow: a request to the API server failed", last: "get workflows default/job7"},
		"no permission to read":    {setUp: func(c *cluster) { c.refuse("get workflows", errForbidden) }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_INTERNAL, text: "Could not find workflow: the API server denied a request", last: "get workflows default/job7"},
		"another's workflow":       {caller: user(1002), kind: datamovement.ErrNotFound, reason: v2.ErrorReason_WORKFLOW_NOT_FOUND, text: `could not find workflow "default/job7"`, last: "get workflows default/job7"},
		"root's workflow":          {setUp: func(c *cluster) { c.workflow.Spec.UserID = 0 }, caller: user(0), kind: datamovement.ErrDenied, reason: v2.ErrorReason_ACCESS_DENIED, text: "as root are not allowed", last: "get workflows default/job7"},
		"wrong group":              {setUp: func(c *cluster) { c.workflow.Spec.GroupID = 7 }, kind: datamovement.ErrDenied, reason: v2.ErrorReason_ACCESS_DENIED, text: "not a member", last: "get workflows default/job7"},
		"too late":                 {setUp: func(c *cluster) { c.workflow.Status.State = dws.StatePostRun }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_WORKFLOW_STATE, text: "Workflow must be in 'PreRun' state and 'Completed' status", last: "get workflows default/job7"},
		"mounts unreadable":        {setUp: func(c *cluster) { c.refuse("list clientmounts compute", errBroken) }, kind: datamovement.ErrUnavailable, reason: v2.ErrorReason_UNAVAILABLE, text: "Error finding compute mount info: ", last: "list clientmounts compute-01 at hand"},
		"no mounts":                {setUp: func(c *cluster) { c.mounts = nil }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_MOUNT_NOT_FOUND, text: "Error finding compute mount info: no client mounts found for node 'compute-01'", last: "list clientmounts compute-01"},
		"elsewhere":                {change: func(r *datamovement.Request) { r.Source = mount0 + "1/x" }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_MOUNT_NOT_FOUND, text: "Error finding compute mount info: source path", last: "list clientmounts compute-01"},
		"xfs":                      {setUp: func(c *cluster) { c.mounts = nil; c.mount(node, mount0, "xfs") }, kind: datamovement.ErrInvalid, reason: v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, text: "filesystem not supported: 'xfs'", last: "list clientmounts compute-01"},
		"rabbit lookup fails":      {setUp: func(c *cluster) { c.refuse("get systemconfigurations", errBroken) }, kind: datamovement.ErrUnavailable, reason: v2.ErrorReason_UNAVAILABLE, text: "Error during createNnfNodeDataMovement(): ", last: "get systemconfigurations default/default"},
		"not on the rabbit":        {setUp: func(c *cluster) { c.mounts = c.mounts[:1] }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_MOUNT_NOT_FOUND, text: "Error during createNnfNodeDataMovement(): no client mounts found for node 'rabbit-01'", last: "list clientmounts rabbit-01"},
		"lustre, no servers": {setUp: func(c *cluster) { c.mounts = nil; c.mount(node, mount0, dws.TypeLustre) }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_MOUNT_NOT_FOUND,
			text: "Error during createNnfDataMovement(): no client mounts found", last: "list clientmounts "},
		"lustre, no index": {setUp: func(c *cluster) {
			c.mounts = nil
			c.mount(node, mount0, dws.TypeLustre)
			c.mount(rabbit, mount0, dws.TypeLustre)
			delete(c.mounts[0].Labels, api.LabelDirectiveIndex)
		}, kind: datamovement.ErrFailed, reason: v2.ErrorReason_MOUNT_NOT_FOUND, text: "unable to find directive index label", last: "list lustrefilesystems"},
		"destination":             {change: func(r *datamovement.Request) { r.Destination = "/home/x" }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_DESTINATION_NOT_FOUND, text: "unable to find a LustreFileSystem resource matching /home/x", last: "list lustrefilesystems"},
		"no file systems":         {setUp: func(c *cluster) { c.systems = nil }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_DESTINATION_NOT_FOUND, text: "no LustreFileSystem resources found", last: "list lustrefilesystems"},
		"no such profile":         {change: func(r *datamovement.Request) { r.Profile = "fast" }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_PROFILE_NOT_FOUND, text: "Error finding profile: unable to retrieve NnfDataMovementProfile: fast", last: "list profiles"},
		"no default profile":      {setUp: func(c *cluster) { c.profiles = nil }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_PROFILE_NOT_FOUND, text: "Error finding profile: unable to find a default", last: "list profiles"},
		"two default profiles":    {setUp: func(c *cluster) { c.profiles = append(c.profiles, profile("a", true)) }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_PROFILE_NOT_FOUND, text: "unable to pick one: [a default]", last: "list profiles"},
		"profile without a dcp":   {setUp: func(c *cluster) { c.profiles[0].Data.Command = "cp $SRC $DEST" }, change: func(r *datamovement.Request) { r.DCPOptions = "-p" }, kind: datamovement.ErrInvalid, reason: v2.ErrorReason_INVALID_FIELD, text: "does not run dcp", last: "list profiles"},
		"rejected by the server":  {setUp: func(c *cluster) { c.refuse("create", errInvalid) }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_INTERNAL, text: "Error creating DataMovement: the API server rejected", last: "create nnfdatamovements rabbit-01"},
		"no permission to create": {setUp: func(c *cluster) { c.refuse("create", errForbidden) }, kind: datamovement.ErrFailed, reason: v2.ErrorReason_INTERNAL, text: "Error creating DataMovement: the API server denied a request", last: "create nnfdatamovements rabbit-01"},
		"server error":            {setUp: func(c *cluster) { c.refuse("create", errBroken) }, kind: datamovement.ErrUnavailable, reason: v2.ErrorReason_UNAVAILABLE, text: "Error creating DataMovement: a request to the API server failed", last: "create nnfdatamovements rabbit-01"},
		"no permission for discovery": {setUp: func(c *cluster) {
			c.refuse("get workflows", kube.ErrVersionGone)
			c.refuse("discover", errForbidden)
		}, kind: datamovement.ErrFailed, reason: v2.ErrorReason_INTERNAL, text: "the API server denied a request", last: "discover workflows"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *Service, c *cluster, log *lines) {
				r, caller := usualRequest, tt.caller
				if tt.change != nil {
					tt.change(&r)
				}
				if tt.setUp != nil {
					tt.setUp(c)
				}
				if caller.RPC == "" {
					caller = user(1001)
				}
				uid, err := s.Create(t.Context(), caller, r)
				f := datamovement.Explain(err)
				if uid != "" || f == nil || !errors.Is(err, tt.kind) || f.Reason != tt.reason || !strings.Contains(f.Error(), tt.text) {
					t.Errorf("%q, %v", uid, err)
				}
				if strings.Contains(f.Error(), "secret") {
					t.Errorf("the error contains the server's text: %v", err)
				}
				last := ""
				for _, line := range c.requests() {
					last = line
				}
				if last != tt.last {
					t.Errorf("the last request is %q, want %q", last, tt.last)
				}
				if len(c.movements) != 0 {
					t.Error("an object was created")
				}
				// The log shows the cause: the caller or the server.
				record := map[error]string{datamovement.ErrInvalid: "event=dm-refused", datamovement.ErrDenied: "event=dm-refused"}[tt.kind]
				if tt.reason == v2.ErrorReason_INTERNAL || tt.reason == v2.ErrorReason_UNAVAILABLE {
					record = "event=dm-api"
				}
				if record != "" && log.count(record) != 1 {
					t.Errorf("%d records %s", log.count(record), record)
				}
			})
		})
	}
}

// Nothing is created for a caller that has disconnected.
func TestCreateEndsWithCaller(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.refuse("create", context.Canceled) // as from the real client
		_, err := s.Create(ctx, user(1001), usualRequest)
		if f := datamovement.Explain(err); f == nil || f.Reason != v2.ErrorReason_CALLER_GONE {
			t.Errorf("%v", err)
		}
	})
}

// Movements that root creates for a user belong to the user: identity, access, deletion.
func TestRootCreatesForUser(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid, err := s.Create(t.Context(), user(0), usualRequest)
		if err != nil {
			t.Fatal(err)
		}
		if dm := c.movements[uid]; dm.Spec.UserID != 1001 || dm.Spec.GroupID != 100 {
			t.Errorf("copies as %d:%d", dm.Spec.UserID, dm.Spec.GroupID)
		}
		wantState(t, s, uid, 0, pending, unknownStatus)
		now := *s.settings.Load()
		now.Policy.RootMayAll = false
		s.SetSettings(now)
		if _, err := s.Status(t.Context(), user(0), job7, uid, 0); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("root without root_may_all: %v", err)
		}
		if _, err := s.Create(t.Context(), user(0), usualRequest); !errors.Is(err, datamovement.ErrNotFound) {
			t.Errorf("root without root_may_all: %v", err)
		}
	})
}

// New settings apply to users with running requests.
func TestSetSettings(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		r := usualRequest
		r.DCPOptions = "-p"
		if _, err := s.Create(t.Context(), user(1001), r); err != nil {
			t.Fatal(err)
		}
		now := *s.settings.Load()
		var err error
		if now.Choices, err = datamovement.NewOptions(datamovement.OptionsNone, nil, nil); err != nil {
			t.Fatal(err)
		}
		now.Limits.CreateBurst, now.Limits.CreatesPerSecond, now.MaxWait, now.LookupExpiry = 2, 1, time.Minute, 0
		s.SetSettings(now)
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrInvalid) {
			t.Errorf("options are disabled: %v", err)
		}
		c.requests()
		wait.Advance(time.Minute)
		uid := created(t, s)
		if n := len(c.requests()); n != 9 {
			t.Errorf("%d requests without a cache", n)
		}
		created(t, s)
		if _, err := s.Create(t.Context(), user(1001), usualRequest); !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("above the new rate: %v", err)
		}
		start := time.Now()
		wantState(t, s, uid, -1, pending, unknownStatus)
		if d := time.Since(start); d != time.Minute {
			t.Errorf("waited %s", d)
		}
	})
}

// A key belongs to one user, one workflow and one request.
func TestKeyAfterLostResponse(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		r := usualRequest
		r.Key = "k"
		first, err := s.Create(t.Context(), user(1001), r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.Create(t.Context(), user(0), r); err != nil || again != first {
			t.Errorf("%q, %v", again, err)
		}
		c.refuse("get nnfdatamovements", errBroken)
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrUnavailable) {
			t.Errorf("the first movement cannot be read: %v", err)
		}
		c.refuse("get nnfdatamovements", nil)
		r.Key = "-"
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrInvalid) {
			t.Errorf("invalid key: %v", err)
		}
		r.Key = "other"
		if uid, err := s.Create(t.Context(), user(1001), r); err != nil || uid == first {
			t.Errorf("%q, %v", uid, err)
		}
	})
}

func TestCreateRequests(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		uid := created(t, s)
		if cold := c.requests(); len(cold) > 13 {
			t.Errorf("cold: %q", cold)
		}
		dm := c.movements[uid]
		if dm.Namespace != rabbit || dm.Spec.Source.Path != mount0+"/rabbit-01-3/out/" || dm.Spec.UserID != 1001 || dm.Spec.ProfileReference.Name != "default" {
			t.Errorf("object %+v", dm)
		}
		// Creations within a second use the cached data of the first one.
		for range 3 {
			created(t, s)
		}
		want := []string{"create nnfdatamovements rabbit-01", "create nnfdatamovements rabbit-01", "create nnfdatamovements rabbit-01"}
		if got := c.requests(); !slices.Equal(got, want) {
			t.Errorf("immediately: %q\nwant: %q", got, want)
		}
		wait.Advance(jobWindow + time.Millisecond)
		created(t, s)
		want = []string{"get workflows default/job7", "get clientmounts compute-01/cm-0", "get clientmounts rabbit-01/cm-1", "create nnfdatamovements rabbit-01"}
		if got := c.requests(); !slices.Equal(got, want) {
			t.Errorf("later: %q\nwant: %q", got, want)
		}
	})
}

// Errors of the object take precedence over errors of the profile, and the error has the
// name of one step only.
func TestCreateSteps(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.mounts = nil
		c.mount(node, mount0, dws.TypeLustre)
		c.mount(rabbit, mount0, dws.TypeLustre)
		delete(c.mounts[0].Labels, api.LabelDirectiveIndex)
		r := usualRequest
		r.Profile = "nope"
		const want = "Error during createNnfDataMovement(): unable to find directive index label on compute ClientMount, "
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrFailed) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("no label: %v", err)
		}
	})
}

func TestRepeatedRequest(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		r := usualRequest
		r.Key = "mine"
		first, err1 := s.Create(t.Context(), user(1001), r)
		again, err2 := s.Create(t.Context(), user(1001), r)
		if err1 != nil || err2 != nil || first != again || len(c.movements) != 1 {
			t.Errorf("%q, %v; %q, %v", first, err1, again, err2)
		}
		r.Destination = "/lus/global/elsewhere"
		if _, err := s.Create(t.Context(), user(1001), r); !errors.Is(err, datamovement.ErrInvalid) {
			t.Errorf("another request with the key: %v", err)
		}
	})
}

func TestRabbitLookup(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		nodes := c.system.Spec.StorageNodes
		c.system.Spec.StorageNodes = nil
		if _, err := s.Create(t.Context(), user(1001), usualRequest); !errors.Is(err, datamovement.ErrUnavailable) {
			t.Errorf("no rabbit: %v", err)
		}
		c.system.Spec.StorageNodes = nodes
		wait.Advance(refreshAfter + time.Second)
		created(t, s)
	})
}

func TestExternalCompute(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		c.system.Spec.StorageNodes[0].ComputesAccess = nil
		c.system.Spec.ExternalComputeNodes = []dws.ExternalNode{{Name: node}}
		if _, err := s.Create(t.Context(), user(1001), usualRequest); !errors.Is(err, datamovement.ErrFailed) {
			t.Errorf("gfs2: %v", err)
		}
		wait.Advance(time.Nanosecond) // cached data of the first creation is not a reason to refuse the next
		c.mounts = nil
		c.mount(node, mount0, dws.TypeLustre)
		c.mount("rabbit-02", mount0, dws.TypeLustre)
		c.mount("compute-99", "/elsewhere", dws.TypeLustre)
		uid := created(t, s)
		if dm := c.movements[uid]; dm.Namespace != nnf.NamespaceDataMovement || dm.Spec.Source.Path != usualRequest.Source {
			t.Errorf("lustre: %+v", dm)
		}
		wantState(t, s, uid, 0, pending, unknownStatus)
	})
}

func TestCreateRate(t *testing.T) {
	bubble(t, func(t *testing.T, s *Service, c *cluster, _ *lines) {
		for range 20 {
			created(t, s)
		}
		_, err := s.Create(t.Context(), user(1001), usualRequest)
		if !errors.Is(err, datamovement.ErrExhausted) {
			t.Errorf("above the rate: %v", err)
		}
		if _, err := s.Create(t.Context(), user(0), usualRequest); err != nil {
			t.Errorf("another user: %v", err)
		}
		wait.Advance(time.Second)
		created(t, s)
	})
}
