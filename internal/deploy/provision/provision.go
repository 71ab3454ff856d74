// Package provision brings the objects of package identities to the API server: it reads what is
// there, compares, applies, deletes, and replaces the accounts of a node.
//
// It must not know what the objects are for, nor how results are displayed.
package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubejson "k8s.io/apimachinery/pkg/util/json"

	"github.com/compute-daemons/compute-daemons/internal/deploy/identities"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Ref names an object.
type Ref struct{ Kind, Namespace, Name string }

// String returns "RoleBinding compute-01/compute-daemons-nnf-dm".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// RefOf returns the name of an object.
func RefOf(o identities.Object) Ref {
	m := o["metadata"].(identities.Object)
	namespace, _ := m["namespace"].(string)
	return Ref{o["kind"].(string), namespace, m["name"].(string)}
}

// RefsOf returns the names of objects.
func RefsOf(objects ...identities.Object) (list []Ref) {
	for _, o := range objects {
		list = append(list, RefOf(o))
	}
	return list
}

// resources are the kinds of the objects.
var resources = map[string]kube.Resource{
	"ServiceAccount":                   {Version: "v1", Plural: "serviceaccounts"},
	"RoleBinding":                      {Group: identities.GroupRBAC, Version: "v1", Plural: "rolebindings"},
	"ClusterRoleBinding":               {Group: identities.GroupRBAC, Version: "v1", Plural: "clusterrolebindings"},
	"ClusterRole":                      {Group: identities.GroupRBAC, Version: "v1", Plural: "clusterroles"},
	"ValidatingAdmissionPolicy":        {Group: identities.GroupAdmission, Version: "v1", Plural: "validatingadmissionpolicies"},
	"ValidatingAdmissionPolicyBinding": {Group: identities.GroupAdmission, Version: "v1", Plural: "validatingadmissionpolicybindings"},
}

func (r Ref) resource() kube.Resource {
	k := resources[r.Kind]
	k.Kind = r.Kind
	return k
}

// State is how an object on the API server compares with the one that it should be.
type State int

// The states.
const (
	Missing State = iota
	Same
	Different
	Foreign // it exists, but nnf-deploy has not created it
)

// object has the fields of an object that the objects of package identities set.
type object struct {
	metav1.ObjectMeta `json:"metadata"`

	Automount any `json:"automountServiceAccountToken,omitempty"`
	RoleRef   any `json:"roleRef,omitempty"`
	Subjects  any `json:"subjects,omitempty"`
	Rules     any `json:"rules,omitempty"`
	Spec      any `json:"spec,omitempty"`
}

// contents returns the fields that are compared.
func (o *object) contents() [5]any {
	return [5]any{o.Automount, o.RoleRef, o.Subjects, o.Rules, o.Spec}
}

func (o *object) managed() bool { return identities.Managed(o.Labels) }

// decode returns the same type for an object that should exist.
func decode(o identities.Object) (*object, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	out := new(object)
	return out, kubejson.Unmarshal(data, out)
}

// Found are the objects that were on the API server when they were read.
type Found map[Ref]*object

// State compares an object with the one that was found.
func (f Found) State(o identities.Object) State {
	have := f[RefOf(o)]
	switch want, err := decode(o); {
	case have == nil:
		return Missing
	case !have.managed():
		return Foreign
	case err != nil || !reflect.DeepEqual(have.contents(), want.contents()):
		return Different
	}
	return Same
}

// Lacking returns the namespaces of the accounts that a binding should have, but does not: all, if it is
// for another role or not created by nnf-deploy.
func (f Found) Lacking(o identities.Object) map[string]bool {
	key := func(subject any) (k [3]any, namespace string) {
		m, _ := subject.(map[string]any)
		namespace, _ = m["namespace"].(string)
		return [3]any{m["kind"], m["name"], namespace}, namespace
	}
	there := map[[3]any]bool{}
	want, err := decode(o)
	if have := f[RefOf(o)]; err == nil && have != nil && have.managed() && reflect.DeepEqual(have.RoleRef, want.RoleRef) {
		subjects, _ := have.Subjects.([]any)
		for _, s := range subjects {
			k, _ := key(s)
			there[k] = true
		}
	}
	lacking := map[string]bool{}
	if err == nil {
		subjects, _ := want.Subjects.([]any)
		for _, s := range subjects {
			if k, namespace := key(s); !there[k] {
				lacking[namespace] = true
			}
		}
	}
	return lacking
}

// Has reports whether nnf-deploy has created an object with this name.
func (f Found) Has(r Ref) bool { return f[r] != nil && f[r].managed() }

// Foreign reports whether another program has created the object with this name.
func (f Found) Foreign(r Ref) bool { return f[r] != nil && !f[r].managed() }

// Stale returns the objects that nnf-deploy has created, but whose names are not in known: those of
// nodes and rabbits that have left the system, and of older versions.
func (f Found) Stale(known []Ref) (list []Ref) {
	keep := map[Ref]bool{}
	for _, r := range known {
		keep[r] = true
	}
	for r, o := range f {
		if !keep[r] && o.managed() && identities.Named(r.Kind, r.Name) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// Others returns the accounts that the policies apply to because of their names, although they are
// not in known and nnf-deploy has not created them.
func (f Found) Others(known []Ref) (list []Ref) {
	keep := map[Ref]bool{}
	for _, r := range known {
		keep[r] = true
	}
	for r, o := range f {
		if !keep[r] && !o.managed() && r.confined() {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b Ref) int { return strings.Compare(a.String(), b.String()) })
	return list
}

// confined reports whether the policies apply to an account, whatever its namespace.
func (r Ref) confined() bool { return r.Kind == "ServiceAccount" && identities.Named(r.Kind, r.Name) }

// Server is the API server, with the permissions of the administrator.
type Server struct {
	Force  bool // take over objects that nnf-deploy has not created, and fields that it has not set
	DryRun bool // the server checks requests, but stores nothing

	client *kube.Client
	slots  chan struct{} // one for each request that may be sent at the same time
}

// New returns the API server. It gets at most this number of requests at the same time.
func New(c *kube.Client, parallel int) *Server {
	return &Server{client: c, slots: make(chan struct{}, max(1, parallel))}
}

// Manager is the field manager of all objects.
const Manager = "nnf-deploy"

// Check returns an error unless the API server serves the admission policies.
func (s *Server) Check(ctx context.Context) error {
	r := Ref{Kind: "ValidatingAdmissionPolicy"}.resource()
	_, err := s.client.Served(ctx, r, []string{r.Version})
	if errors.Is(err, kube.ErrNotServed) {
		return fmt.Errorf("the API server does not serve ValidatingAdmissionPolicies in version %s, which Kubernetes has since 1.30: without them, the account of a node can change what it must not, so no accounts are created", r.Version)
	}
	return err
}

// Number of attempts, and the first delay: with the retries of the client itself, an API server can be
// down for about 15 s, such as during a restart.
const (
	maxAttempts = 6
	firstDelay  = 500 * time.Millisecond
)

// do sends a request when a slot is free. It repeats it after a failure that may pass, so f must be
// idempotent.
func (s *Server) do(ctx context.Context, f func() error) error {
	delay := firstDelay
	for attempt := 1; ; attempt++ {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := f()
		<-s.slots
		if err == nil || attempt == maxAttempts || !passing(err) || ctx.Err() != nil {
			return err
		}
		kube.Pause(ctx, delay/2+rand.N(delay))
		delay *= 2
	}
}

// passing reports whether a request that failed may succeed later.
func passing(err error) bool {
	var api apierrors.APIStatus
	if !errors.As(err, &api) {
		return !errors.Is(err, kube.ErrVersionGone)
	}
	code := api.Status().Code
	return code == 429 || code >= 500
}

// manyObjects is the number of objects above which all of a kind are listed.
const manyObjects = 400

// Read reads the objects with these names.
func (s *Server) Read(ctx context.Context, refs []Ref) (Found, error) {
	if len(refs) > manyObjects {
		return s.ReadAll(ctx, refs)
	}
	found := Found{}
	var mu sync.Mutex
	err := s.each(ctx, len(refs), func(ctx context.Context, i int) error {
		r, o := refs[i], new(object)
		err := s.do(ctx, func() error { return s.client.Get(ctx, r.resource(), r.Namespace, r.Name, o) })
		if kube.IsNotFound(err) {
			return nil
		}
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			found[r] = small(o)
		}
		return err
	})
	return found, err
}

// ReadAll reads the objects with these names, all that nnf-deploy has created, and all accounts that
// the policies apply to.
func (s *Server) ReadAll(ctx context.Context, refs []Ref) (Found, error) {
	wanted := map[Ref]bool{}
	for _, r := range refs {
		wanted[r] = true
	}
	found := Found{}
	var mu sync.Mutex
	kinds := slices.Sorted(maps.Keys(resources))
	err := s.each(ctx, len(kinds), func(ctx context.Context, i int) error {
		var list []*object
		err := s.do(ctx, func() (err error) {
			list, err = kube.List[object](ctx, s.client, Ref{Kind: kinds[i]}.resource(), "", "")
			return err
		})
		mu.Lock()
		defer mu.Unlock()
		for _, o := range list {
			if r := (Ref{kinds[i], o.Namespace, o.Name}); o.managed() || wanted[r] || r.confined() {
				found[r] = small(o)
			}
		}
		return err
	})
	return found, err
}

// small keeps only what is compared: there are tens of thousands of objects.
func small(o *object) *object {
	o.ObjectMeta = metav1.ObjectMeta{UID: o.UID, Labels: o.Labels}
	return o
}

// each calls f for all numbers below n at the same time, and returns the first error.
func (s *Server) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// Change is what was done to an object, or would be done.
type Change string

// The changes.
const (
	None   Change = ""
	Create Change = "create"
	Update Change = "change"
	Remove Change = "delete"
)

// Apply makes an object on the API server what it should be. found has what was there before.
func (s *Server) Apply(ctx context.Context, found Found, o identities.Object) (Change, error) {
	r, change := RefOf(o), Update
	switch state := found.State(o); {
	case state == Same:
		return None, nil
	case state == Missing:
		change = Create
	case state == Foreign && !s.Force:
		return None, foreign(r)
	}
	if change == Update && found.otherRole(o) {
		// The API server refuses to change the role of a binding.
		if _, err := s.Delete(ctx, found, r); err != nil || s.DryRun {
			return change, err
		}
	}
	return change, s.apply(ctx, o)
}

// otherRole reports whether a binding is for another role than it should be.
func (f Found) otherRole(o identities.Object) bool {
	have := f[RefOf(o)]
	want, err := decode(o)
	return err == nil && have.RoleRef != nil && !reflect.DeepEqual(have.RoleRef, want.RoleRef)
}

func (s *Server) apply(ctx context.Context, o identities.Object) error {
	r := RefOf(o)
	options := kube.ApplyOptions{Manager: Manager, Force: s.Force, DryRun: s.DryRun}
	var result *object
	err := s.do(ctx, func() error {
		result = new(object)
		return s.client.Apply(ctx, r.resource(), r.Namespace, r.Name, o, options, result)
	})
	if err != nil {
		return problem(err, r)
	}
	// A server-side apply keeps what another program has added to a list.
	if state := (Found{r: result}).State(o); state != Same {
		return &Problem{"a " + r.Kind + " has additions of another program", "check which program made them, delete the object, and run the command again",
			fmt.Errorf("%s differs even after it was applied, because another program has added to it", r)}
	}
	return nil
}

// ApplyAll applies objects at the same time, and returns the changes in their order. It returns the
// first error.
func (s *Server) ApplyAll(ctx context.Context, found Found, objects []identities.Object) ([]Change, error) {
	changes := make([]Change, len(objects))
	err := s.each(ctx, len(objects), func(ctx context.Context, i int) (err error) {
		changes[i], err = s.Apply(ctx, found, objects[i])
		return err
	})
	return changes, err
}

// Delete deletes the object with this name if nnf-deploy has created it, and if it is still the one
// that was found. With DryRun, it sends no request.
func (s *Server) Delete(ctx context.Context, found Found, r Ref) (Change, error) {
	have := found[r]
	switch {
	case have == nil || !have.managed() && !s.Force:
		return None, nil
	case s.DryRun:
		return Remove, nil
	}
	err := s.do(ctx, func() error { return s.client.DeleteObject(ctx, r.resource(), r.Namespace, r.Name, have.UID) })
	if kube.IsNotFound(err) {
		err = nil // another program was faster, or an attempt whose response was lost
	}
	if kube.IsConflict(err) {
		err = &Problem{Class: "an object was replaced in the meantime", Hint: "run the command again", err: err}
	}
	return Remove, problem(err, r)
}

// DeleteAll deletes objects at the same time, and returns the changes in their order. It returns the
// first error.
func (s *Server) DeleteAll(ctx context.Context, found Found, refs []Ref) ([]Change, error) {
	changes := make([]Change, len(refs))
	err := s.each(ctx, len(refs), func(ctx context.Context, i int) (err error) {
		changes[i], err = s.Delete(ctx, found, refs[i])
		return err
	})
	return changes, err
}

// Uncached is the time after which an API server no longer accepts the tokens of a deleted account.
// It caches the result of a check for 10 s (TokenSuccessCacheTTL of kube-apiserver, which is not
// configurable), and learns of the deletion by its watch.
const Uncached = 15 * time.Second

// Replace deletes accounts that were found, and creates them again when API servers no longer accept
// their old tokens. All tokens of an account are for its UID, so that the old ones are never valid
// again. If the account existed in the meantime, an attacker could use an old token, which a server
// has cached, to request a new one. If only some of the accounts exist, as after an interruption, it
// creates the others, too. step is called before the delay.
func (s *Server) Replace(ctx context.Context, found Found, accounts []identities.Object, step func()) error {
	refs, exist := RefsOf(accounts...), false
	for _, r := range refs {
		if found.Foreign(r) {
			return foreign(r)
		}
		exist = exist || found.Has(r)
	}
	if !exist && len(refs) > 0 {
		return &Problem{"an account does not exist", "its tokens are not valid; create it with nnf-deploy identities apply", fmt.Errorf("%s does not exist", refs[0])}
	}
	if s.DryRun {
		return nil
	}
	for _, r := range refs {
		if _, err := s.Delete(ctx, found, r); err != nil {
			return err
		}
	}
	step()
	if kube.Pause(ctx, Uncached); ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err := s.ApplyAll(ctx, Found{}, accounts)
	return err
}

// Problem is an error for one object.
type Problem struct {
	Class string // what is the same for all nodes with this problem
	Hint  string // the next action
	err   error
}

// Error returns the text.
func (p *Problem) Error() string { return p.err.Error() }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.err }

// foreign returns the error for an object that another program has created.
func foreign(r Ref) error {
	return &Problem{fmt.Sprintf("a %s was not created by nnf-deploy", r.Kind), "check what uses it, then delete it, or take it over with identities apply --force",
		fmt.Errorf("%s exists, but was not created by nnf-deploy", r)}
}

// problem returns the *Problem for an error of a request for an object.
func problem(err error, r Ref) error {
	var api apierrors.APIStatus
	switch p := (*Problem)(nil); {
	case err == nil || errors.As(err, &p):
		return err
	case kube.IsNotFound(err) && r.Namespace != "":
		return &Problem{"a namespace does not exist", "the software of the rabbits creates the namespaces of all nodes in the SystemConfiguration: check that it runs, and that this is the right cluster",
			fmt.Errorf("%s: the namespace %q does not exist", r, r.Namespace)}
	case kube.IsConflict(err):
		return &Problem{"another program manages fields of a " + r.Kind, "check which program sets them, then take them over with --force", err}
	case kube.IsForbidden(err):
		return &Problem{"the administrator may not change a " + r.Kind, "use the rights of cluster-admin", err}
	case errors.As(err, &api):
		return &Problem{fmt.Sprintf("the API server answered %d for a %s", api.Status().Code, r.Kind), "", err}
	}
	return &Problem{"the API server did not answer", "run the command again", err}
}
