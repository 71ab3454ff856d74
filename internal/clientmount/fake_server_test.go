package clientmount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// fakeServer stores one ClientMount and one profile, applies patches to them and logs each
// write.
type fakeServer struct {
	mu      sync.Mutex
	cm      *dws.ClientMount
	profile *nnf.StorageProfile
	writes  []string
	gets    int
	fail    map[string]error // "get", "status", "finalizer"
	changed chan struct{}    // one token per write

	storage  *nnf.StorageOwner
	servers  []*dws.Servers
	selector string
	without  string   // the version that has no Servers
	versions []string // of the requests for Servers
}

func newFakeServer(cm *dws.ClientMount, p *nnf.StorageProfile) *fakeServer {
	return &fakeServer{cm: cm, profile: p, fail: map[string]error{}, changed: make(chan struct{}, 100)}
}

func (s *fakeServer) Served(_ context.Context, r kube.Resource, known []string) (string, error) {
	if r.Plural == "servers" && known[0] == s.without {
		return known[1], nil
	}
	return known[0], nil
}

func (s *fakeServer) Get(_ context.Context, r kube.Resource, _, name string, into any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	if err := s.fail["get"]; err != nil {
		return err
	}
	switch out := into.(type) {
	case *nnf.StorageProfile:
		if s.profile == nil {
			return notFound(r, name)
		}
		*out = *s.profile
	case *nnf.StorageOwner:
		if s.storage == nil {
			return notFound(r, name)
		}
		*out = *s.storage
	case *dws.ClientMount:
		if s.cm == nil {
			return notFound(r, name)
		}
		*out = *s.cm.DeepCopyObject().(*dws.ClientMount)
	default:
		return fmt.Errorf("the fake holds no %T", into)
	}
	return nil
}

func (s *fakeServer) Patch(_ context.Context, r kube.Resource, _, name, sub string, pt types.PatchType, body []byte, into any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}()
	if s.cm == nil {
		return notFound(r, name)
	}
	if name != s.cm.Name {
		return nil // another object, whose writes no test checks
	}
	switch {
	case sub == "status" && pt == types.MergePatchType:
		if err := s.fail["status"]; err != nil {
			return err
		}
		var p struct {
			Metadata struct{ UID types.UID }
			Status   dws.ClientMountStatus
		}
		if err := json.Unmarshal(body, &p); err != nil {
			return err
		}
		if p.Metadata.UID != s.cm.UID {
			return errors.New("conflict: another uid")
		}
		s.cm.Status = p.Status
		s.writes = append(s.writes, "status "+describe(&p.Status))
	case sub == "" && pt == types.JSONPatchType:
		if err := s.fail["finalizer"]; err != nil {
			return err
		}
		if err := s.jsonPatch(body); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unexpected patch of %q by %s", sub, pt)
	}
	if out, ok := into.(*dws.ClientMount); ok && s.cm != nil {
		*out = *s.cm.DeepCopyObject().(*dws.ClientMount)
	}
	return nil
}

// jsonPatch supports only the operations that we send. Like the API server, it fails if a
// test operation fails.
func (s *fakeServer) jsonPatch(body []byte) error {
	var ops []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal(body, &ops); err != nil {
		return err
	}
	list := append([]string(nil), s.cm.Finalizers...)
	for _, o := range ops {
		var index int
		switch {
		case o.Path == "/metadata/uid":
			if o.Op != "test" || o.Value != string(s.cm.UID) {
				return invalid()
			}
		case o.Op == "test" && o.Path == "/metadata/finalizers":
			var have any
			if len(list) > 0 {
				var v []any
				for _, f := range list {
					v = append(v, f)
				}
				have = v
			}
			if !reflect.DeepEqual(have, o.Value) {
				return invalid()
			}
		case o.Op == "add" && o.Path == "/metadata/finalizers":
			for _, v := range o.Value.([]any) {
				list = append(list, v.(string))
			}
		case o.Op == "add" && o.Path == "/metadata/finalizers/-":
			list = append(list, o.Value.(string))
		default:
			if _, err := fmt.Sscanf(o.Path, "/metadata/finalizers/%d", &index); err != nil || index >= len(list) {
				return invalid()
			}
			if o.Op == "test" && list[index] != o.Value {
				return invalid()
			}
			if o.Op == "remove" {
				list = append(list[:index], list[index+1:]...)
			}
		}
	}
	s.cm.Finalizers = list
	s.writes = append(s.writes, fmt.Sprintf("finalizers %v", list))
	if s.cm.DeletionTimestamp != nil && len(list) == 0 {
		s.cm = nil
	}
	return nil
}

// Watch is not used, because tests call the handler directly.
func (s *fakeServer) Watch(context.Context, kube.Resource, string, func(kube.State), kube.Handler[dws.ClientMount]) error {
	return errors.ErrUnsupported
}

func (s *fakeServer) Servers(_ context.Context, r kube.Resource, selector string) ([]*dws.Servers, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions = append(s.versions, r.Version); r.Version == s.without {
		return nil, kube.ErrVersionGone
	}
	s.selector = selector
	return s.servers, nil
}

// written returns and clears the log of writes.
func (s *fakeServer) written() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.writes
	s.writes = nil
	return out
}

func (s *fakeServer) object() *dws.ClientMount {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cm == nil {
		return nil
	}
	return s.cm.DeepCopyObject().(*dws.ClientMount)
}

func describe(st *dws.ClientMountStatus) string {
	text := fmt.Sprint(st.Mounts, st.AllReady)
	if st.Error != nil {
		text += fmt.Sprintf(" %s: %s", st.Error.Severity, st.Error.DebugMessage)
	}
	return text
}

func notFound(r kube.Resource, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: r.Group, Resource: r.Plural}, name)
}

func invalid() error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "ClientMount"}, "x", nil)
}

// latency is the response time of apiServer.
const latency = 3 * time.Millisecond

// apiServer responds to the requests of a kube.Client in virtual time.
type apiServer struct {
	mu       sync.Mutex
	profiles map[string]bool
	finals   map[string][]string
	ready    map[string]time.Time // when a status reported allReady
	requests []apiRequest
}

type apiRequest struct {
	at   time.Time
	line string
}

func newAPIServer(profiles ...string) *apiServer {
	s := &apiServer{profiles: map[string]bool{}, finals: map[string][]string{}, ready: map[string]time.Time{}}
	for _, p := range profiles {
		s.profiles[p] = true
	}
	return s
}

func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.requests = append(s.requests, apiRequest{time.Now(), r.Method + " " + r.URL.Path})
	s.mu.Unlock()
	select {
	case <-time.After(latency):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	code, out := s.answer(r)
	body, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
}

func (s *apiServer) answer(r *http.Request) (int, any) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) == 3:
		return 200, map[string]any{"kind": "APIResourceList", "resources": []any{map[string]any{"name": "nnfstorageprofiles"}}}
	case r.Method == http.MethodGet:
		name := parts[len(parts)-1]
		if !s.profiles[name] {
			return 404, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
				"message": name + " not found", "details": map[string]any{"name": name}}
		}
		p := testProfile()
		p.Name = name
		return 200, p
	}
	name := parts[6]
	body, _ := io.ReadAll(r.Body)
	if len(parts) == 8 {
		var patch struct{ Status dws.ClientMountStatus }
		if err := json.Unmarshal(body, &patch); err != nil {
			return 400, nil
		}
		if patch.Status.AllReady {
			s.ready[name] = time.Now()
		}
	} else {
		s.finals[name] = []string{api.FinalizerClientMount}
	}
	cm := &dws.ClientMount{}
	cm.Name, cm.Finalizers = name, s.finals[name]
	return 200, cm
}

func (s *apiServer) setProfile(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiles[name] = true
}

// since returns the requests since t.
func (s *apiServer) since(t time.Time) (out []apiRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if !r.at.Before(t) {
			out = append(out, r)
		}
	}
	return out
}

// client returns a real kube.Client for the fake server.
func (s *apiServer) client(t *testing.T) *kube.Client {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"http://api.test"}}],"users":[{"name":"u","user":{}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := kube.Dial(kube.Options{Kubeconfig: config, QPS: qps, Burst: burst, Transport: s, Environ: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// readyAfter waits until the status of an object reports allReady, and returns the time
// since start.
func (s *apiServer) readyAfter(t *testing.T, name string, began time.Time) (took time.Duration) {
	t.Helper()
	wait.Within(t, time.Hour, name+" to be ready", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		at, ok := s.ready[name]
		took = at.Sub(began)
		return ok
	})
	return took
}
