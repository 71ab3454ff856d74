package clientmount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// fakeServer holds one ClientMount and one profile, applies patches to them
// and logs each write.
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
}

func newFakeServer(cm *dws.ClientMount, p *nnf.StorageProfile) *fakeServer {
	return &fakeServer{cm: cm, profile: p, fail: map[string]error{}, changed: make(chan struct{}, 100)}
}

func (s *fakeServer) Served(_ context.Context, _ string, known []string) (string, error) {
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
		return nil // a bystander, whose writes nobody looks at
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

// jsonPatch knows just the operations that we send, and fails as the API
// server does when a test does not hold.
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

func (s *fakeServer) Servers(_ context.Context, _ kube.Resource, selector string) ([]*dws.Servers, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.selector = selector
	return s.servers, nil
}

// written returns the writes so far and forgets them.
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
