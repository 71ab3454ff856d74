package kube

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

const account = "system:serviceaccount:nnf-system:nnf-clientmount"

func TestRequests(t *testing.T) {
	s := newServer(t)
	var last string
	s.other = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		last = strings.Join([]string{r.Method, r.URL.String(), r.Header.Get("Content-Type"), string(body)}, " | ")
		if r.Header.Get("Authorization") == "" || r.UserAgent() != "me/1" {
			t.Errorf("headers: %v", r.Header)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, object("a", "7"))
	}
	c := s.dial(func(o *Options) { o.UserAgent = "me/1" })
	ctx := t.Context()
	const at = "/apis/dataworkflowservices.github.io/v1alpha7/namespaces/c1/clientmounts"
	var m dws.ClientMount
	tests := []struct {
		name string
		do   func() error
		want string
	}{
		{"get", func() error { return c.Get(ctx, clientMounts, "c1", "a", &m) }, "GET | " + at + "/a |  | "},
		{"get cached", func() error { return c.GetCached(ctx, clientMounts, "c1", "a", &m) }, "GET | " + at + "/a?resourceVersion=0 |  | "},
		{"patch", func() error {
			return c.Patch(ctx, clientMounts, "c1", "a", "status", types.MergePatchType, []byte(`{"x":1}`), &m)
		}, "PATCH | " + at + `/a/status | application/merge-patch+json | {"x":1}`},
		{"create", func() error {
			return c.Create(ctx, clientMounts, "c1", map[string]int{"x": 1}, nil)
		}, "POST | " + at + ` | application/json | {"x":1}`},
		{"delete", func() error { return c.Delete(ctx, clientMounts, "c1", "a") }, "DELETE | " + at + "/a |  | "},
	}
	for _, tt := range tests {
		m, last = dws.ClientMount{}, ""
		if err := tt.do(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if last != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, last, tt.want)
		}
		if (tt.name == "get" || tt.name == "patch") && (m.Name != "a" || m.Spec.DesiredState != dws.Mounted || m.ManagedFields != nil) {
			t.Errorf("%s: decoded %+v", tt.name, m)
		}
	}
}

// Names come from labels that other programs write.
func TestNamesCannotLeaveTheirSegment(t *testing.T) {
	s := newServer(t)
	s.other = func(http.ResponseWriter, *http.Request) {}
	c := s.dial()
	for _, bad := range []string{"", ".", "..", "../../secrets/x", "a/b", "a%2Fb", "a?watch=1", "a#b", "a\nb", `a\b`, "a\x00"} {
		for _, err := range []error{c.Get(t.Context(), clientMounts, "c1", bad, nil), c.Delete(t.Context(), clientMounts, "c1", bad)} {
			if err == nil {
				t.Errorf("%q was accepted", bad)
			}
		}
		if bad != "" && c.Get(t.Context(), clientMounts, bad, "a", nil) == nil {
			t.Errorf("namespace %q was accepted", bad)
		}
	}
	if log := s.requests(); len(log) > 0 {
		t.Errorf("requests were sent: %q", log)
	}
}

func TestList(t *testing.T) {
	s := newServer(t)
	s.list = s.sendList("10", "a", "b")
	got, err := List[dws.ClientMount](t.Context(), s.dial(), clientMounts, "c1", "x=y")
	if err != nil || len(got) != 2 || got[1].Name != "b" || got[0].ManagedFields != nil {
		t.Errorf("%v, %v", got, err)
	}
	if log := fmt.Sprint(s.requests()); log != "[list ]" {
		t.Errorf("requests: %s", log)
	}
}

func TestPartialListIsAnError(t *testing.T) {
	s := newServer(t)
	s.list = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"metadata":{"resourceVersion":"1","continue":"more"},"items":[]}`)
	}
	if got, err := List[dws.ClientMount](t.Context(), s.dial(), clientMounts, "c1", ""); err == nil {
		t.Errorf("got %v", got)
	}
}

// All pages of a list have the same state. If the server drops that state, the list
// restarts. If a page is too large, smaller pages are requested.
func TestListInPages(t *testing.T) {
	const objects = 1200
	for name, tt := range map[string]struct {
		expire  int  // the response for the second page is 410 that many times
		big     bool // pages of more than 100 objects exceed the limit of a response
		cached  bool // request the cached state, which the server sends in one response
		fails   bool
		atLeast int // requests
	}{
		"three pages":             {atLeast: 3},
		"dropped in between":      {expire: 1, atLeast: 5},
		"dropped each time":       {expire: 1000, fails: true},
		"large objects":           {big: true, atLeast: 10},
		"from the server's cache": {big: true, cached: true, atLeast: 11},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			state, expired := 1, 0
			s.list = func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				limit, _ := strconv.Atoi(q.Get("limit"))
				first := 0
				if token := q.Get("continue"); token != "" {
					var of int
					fmt.Sscanf(token, "%d of %d", &first, &of)
					if q.Get("resourceVersion") != "" {
						sendStatus(w, 400, metav1.StatusReasonBadRequest, "both", nil)
						return
					}
					if expired < tt.expire {
						expired++
						state++
						sendStatus(w, 410, metav1.StatusReasonExpired, "too old", nil)
						return
					}
					if of != state {
						t.Errorf("a page of state %d in a list of state %d", of, state)
					}
				}
				if q.Get("resourceVersion") == "0" {
					limit = objects
				}
				w.Header().Set("Content-Type", "application/json")
				if tt.big && limit > 100 {
					chunk := strings.Repeat(" ", 1<<20)
					for range 40 {
						if _, err := io.WriteString(w, chunk); err != nil {
							return
						}
					}
				}
				var items []string
				last := min(first+limit, objects)
				for i := first; i < last; i++ {
					items = append(items, fmt.Sprintf(`{"metadata":{"name":"o-%d","resourceVersion":"%d"}}`, i, state))
				}
				more := ""
				if last < objects {
					more = fmt.Sprintf("%d of %d", last, state)
				}
				fmt.Fprintf(w, `{"metadata":{"resourceVersion":"%d","continue":%q},"items":[%s]}`, state, more, strings.Join(items, ","))
			}
			list := List[dws.ClientMount]
			if tt.cached {
				list = ListCached[dws.ClientMount]
			}
			got, err := list(t.Context(), s.dial(), clientMounts, "c1", "")
			if tt.fails {
				if err == nil || !apierrors.IsResourceExpired(err) {
					t.Errorf("%d objects, %v", len(got), err)
				}
				return
			}
			seen := map[string]bool{}
			for _, m := range got {
				seen[m.Name] = true
				if m.ResourceVersion != strconv.Itoa(state) {
					t.Fatalf("%s has the state %s", m.Name, m.ResourceVersion)
				}
			}
			if err != nil || len(got) != objects || len(seen) != objects || len(s.requests()) < tt.atLeast {
				t.Errorf("%d objects, %d of them different, %d requests, %v", len(got), len(seen), len(s.requests()), err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	answer := func(code int, reason metav1.StatusReason, msg string, d *metav1.StatusDetails) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { sendStatus(w, code, reason, msg, d) }
	}
	named := &metav1.StatusDetails{Name: "a", Kind: "clientmounts"}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		is     func(error) bool
		words  []string
	}{
		{"401", answer(401, metav1.StatusReasonUnauthorized, "Unauthorized", nil), apierrors.IsUnauthorized,
			[]string{account, "token file /", "they may have expired or been rotated"}},
		{"403", answer(403, metav1.StatusReasonForbidden, "no RBAC", nil), IsForbidden,
			[]string{account, "may not patch clientmounts.dataworkflowservices.github.io/status", `in namespace "c1"`, "no RBAC"}},
		{"object gone", answer(404, metav1.StatusReasonNotFound, `clientmounts "a" not found`, named), IsNotFound, []string{"not found"}},
		{"version gone", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "404 page not found", 404) },
			func(err error) bool {
				return errors.Is(err, ErrVersionGone) && !IsNotFound(err) && apierrors.IsNotFound(err)
			},
			[]string{"does not serve clientmounts", "dataworkflowservices.github.io/v1alpha7"}},
		{"conflict", answer(409, metav1.StatusReasonConflict, "changed", named), IsConflict, []string{"409", "changed"}},
		{"invalid", answer(422, metav1.StatusReasonInvalid, "spec.x: bad", named), IsInvalid, []string{"spec.x: bad"}},
		{"not converted", answer(429, metav1.StatusReasonTooManyRequests, "storage is (re)initializing", nil), apierrors.IsTooManyRequests,
			[]string{"429", "check the conversion webhook of these objects"}},
		{"long text", answer(400, metav1.StatusReasonBadRequest, strings.Repeat("x", 1<<20), nil), apierrors.IsBadRequest, []string{"…"}},
		{"proxy page", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "squid says no", http.StatusBadGateway) },
			func(err error) bool { return kindOf(err) == 502 }, []string{"squid says no"}},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		},
			func(err error) bool { return kindOf(err) == 302 }, []string{"302"}},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
			func(err error) bool { return err != nil }, []string{"cannot decode the response"}},
		{"too large", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			chunk := strings.Repeat(" ", 1<<20)
			for range 40 {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		}, func(err error) bool { return err != nil }, []string{"larger than 32 MiB"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.other = tt.answer
			var m dws.ClientMount
			err := s.dial().Patch(t.Context(), clientMounts, "c1", "a", "status", types.MergePatchType, []byte("{}"), &m)
			if err == nil || !tt.is(err) {
				t.Fatalf("got %v", err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %q", w, err)
				}
			}
			if len(err.Error()) > 2000 {
				t.Errorf("%d bytes of message", len(err.Error()))
			}
		})
	}
}

func TestConnectionErrors(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := newServer(t)
		c := s.dial()
		s.Close()
		err := c.Get(t.Context(), clientMounts, "c1", "a", nil)
		if err == nil || !strings.Contains(err.Error(), "cannot reach API server "+s.URL) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		s := newServer(t)
		s.other = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		c := s.dial(func(o *Options) { o.Timeout = 100 * time.Millisecond })
		err := c.Get(t.Context(), clientMounts, "c1", "a", nil)
		if err == nil || !strings.Contains(err.Error(), "did not respond within 100ms") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("wrong CA", func(t *testing.T) {
		s := newServer(t)
		o := s.options()
		write(t, strings.TrimSuffix(o.CertFile, "/cert"), "cert", otherCA(t), 0o644)
		c, err := Dial(o)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Get(t.Context(), clientMounts, "c1", "a", nil)
		if err == nil || !strings.Contains(err.Error(), "check that "+o.CertFile+" contains the CA certificate of this cluster") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	s := newServer(t)
	n := 0
	s.other = func(w http.ResponseWriter, _ *http.Request) {
		if n++; n < 3 {
			w.Header().Set("Retry-After", "0")
			http.Error(w, "later", []int{429, 503}[n-1])
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, object("a", "7"))
	}
	var m dws.ClientMount
	err := s.dial().Patch(t.Context(), clientMounts, "c1", "a", "", types.MergePatchType, []byte("{}"), &m)
	if err != nil || n != 3 || m.Name != "a" {
		t.Errorf("%d requests, %v", n, err)
	}
}

func TestServed(t *testing.T) {
	const group = "/apis/example.io"
	known := []string{"v1alpha7", "v1alpha6"}
	r := Resource{Group: "example.io", Plural: "things", Kind: "Thing"}
	type served map[string][]string // resources by version
	only := []string{"things"}
	for _, tt := range []struct {
		name     string
		served   served
		want     string
		requests []string
		words    []string
	}{
		{"both", served{"v1alpha6": only, "v1alpha7": only}, "v1alpha7", []string{"/v1alpha7"}, nil},
		{"older", served{"v1alpha6": only}, "v1alpha6", []string{"/v1alpha7", "/v1alpha6"}, nil},
		{"newer and older", served{"v1alpha8": only, "v1alpha6": only}, "v1alpha6", []string{"/v1alpha7", "/v1alpha6"}, nil},
		{"other resources in the newest", served{"v1alpha7": {"others", "things/status"}, "v1alpha6": {"others", "things"}}, "v1alpha6", []string{"/v1alpha7", "/v1alpha6"}, nil},
		{"other resources only", served{"v1alpha7": {"others"}, "v1alpha6": {"others"}}, "", []string{"/v1alpha7", "/v1alpha6", ""},
			[]string{"serves example.io in v1alpha6, v1alpha7, but things in none of the versions v1alpha7, v1alpha6", "CRD of things"}},
		{"none known", served{"v1alpha8": only, "v1alpha9": only}, "", []string{"/v1alpha7", "/v1alpha6", ""}, []string{"example.io", "v1alpha8, v1alpha9", "v1alpha7, v1alpha6"}},
		{"no such group", nil, "", []string{"/v1alpha7", "/v1alpha6", ""}, []string{"example.io", "v1alpha7", "check that its CRDs are installed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.other = func(w http.ResponseWriter, r *http.Request) {
				var answer any
				version, isVersion := strings.CutPrefix(r.URL.Path, group+"/")
				switch resources := tt.served[version]; {
				case isVersion && resources != nil:
					list := metav1.APIResourceList{GroupVersion: "example.io/" + version}
					for _, name := range resources {
						list.APIResources = append(list.APIResources, metav1.APIResource{Name: name})
					}
					answer = list
				case !isVersion && tt.served != nil:
					var g metav1.APIGroup
					for _, v := range slices.Sorted(maps.Keys(tt.served)) {
						g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{Version: v})
					}
					answer = g
				default:
					http.NotFound(w, r)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				if err := json.NewEncoder(w).Encode(answer); err != nil {
					t.Error(err)
				}
			}
			got, err := s.dial().Served(t.Context(), r, known)
			if got != tt.want || (err == nil) != (tt.want != "") || (err != nil && !errors.Is(err, ErrNotServed)) {
				t.Fatalf("got %q, %v", got, err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %q", w, err)
				}
			}
			var want []string
			for _, path := range tt.requests {
				want = append(want, "GET "+group+path)
			}
			if log := s.requests(); !slices.Equal(log, want) {
				t.Errorf("requests %q, want %q", log, want)
			}
		})
	}
}

// A failure that is not a 404 does not mean that the version is not served.
func TestServedFailure(t *testing.T) {
	s := newServer(t)
	s.other = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }
	_, err := s.dial().Served(t.Context(), Resource{Group: "example.io", Plural: "things", Kind: "Thing"}, []string{"v2", "v1"})
	if !IsForbidden(err) || errors.Is(err, ErrNotServed) || !strings.Contains(err.Error(), "may not discover things.example.io") {
		t.Errorf("got %v", err)
	}
	if log := s.requests(); len(log) != 1 {
		t.Errorf("requests %q", log)
	}
}

// A version is found for each resource. A resource without one starts with that of another
// resource of its group.
func TestVersions(t *testing.T) {
	known := []string{"v2", "v1"}
	things, others := Resource{Group: "g", Plural: "things"}, Resource{Group: "g", Plural: "others"}
	elsewhere := Resource{Group: "h", Plural: "things"}
	served := map[Resource]string{things: "v1", others: "v2", elsewhere: "v2"}
	var versions Versions
	var log []string
	use := func(r Resource) {
		t.Helper()
		err := versions.Use(r, known, func(again bool) (string, error) {
			log = append(log, fmt.Sprintf("discover %s %v", r.Plural, again))
			return served[r], nil
		}, func(in Resource) error {
			log = append(log, fmt.Sprintf("%s %s.%s", in.Version, in.Plural, in.Group))
			if in.Version != served[r] {
				return ErrVersionGone
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, step := range []struct {
		name string
		r    Resource
		want []string
	}{
		{"older", things, []string{"v2 things.g", "discover things false", "v1 things.g"}},
		{"found", things, []string{"v1 things.g"}},
		{"not the same as the other resource", others, []string{"v1 others.g", "discover others false", "v2 others.g"}},
		{"the other one is unchanged", things, []string{"v1 things.g"}},
		{"found, too", others, []string{"v2 others.g"}},
		{"another group", elsewhere, []string{"v2 things.h"}},
	} {
		if use(step.r); !slices.Equal(log, step.want) {
			t.Errorf("%s: %q, want %q", step.name, log, step.want)
		}
		log = nil
	}
	served[things] = "v2"
	if use(things); !slices.Equal(log, []string{"v1 things.g", "discover things true", "v2 things.g"}) {
		t.Errorf("no longer served: %q", log)
	}
	served[things], log = "v1", nil
	versions.Forget(things)
	if use(things); !slices.Equal(log, []string{"v2 things.g", "discover things false", "v1 things.g"}) {
		t.Errorf("forgotten: %q", log)
	}
}

func TestSameKind(t *testing.T) {
	reset := func(port int) error {
		return &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: port}, Err: syscall.ECONNRESET}
	}
	cert := &Error{err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}
	name := &net.DNSError{Err: "no such host"}
	unserved := fmt.Errorf("%w: knows v1", ErrNotServed)
	denied, busy := apierrors.NewUnauthorized("no"), apierrors.NewTooManyRequests("later", 1)
	for _, tt := range []struct {
		a, b error
		want bool
	}{
		{reset(1), reset(2), true},
		{reset(1), syscall.ECONNREFUSED, true},
		{reset(1), cert, false},
		{reset(1), name, false},
		{name, cert, false},
		{denied, busy, false},
		{denied, &Error{text: "other words", err: denied}, true},
		{unserved, reset(1), false},
		{unserved, fmt.Errorf("%w: knows v1", ErrNotServed), true},
		{unserved, fmt.Errorf("%w: knows v2", ErrNotServed), false},
		{nil, denied, false},
	} {
		if got := SameKind(tt.a, tt.b); got != tt.want {
			t.Errorf("%v and %v: %v", tt.a, tt.b, got)
		}
		if got := SameKind(tt.b, tt.a); got != tt.want {
			t.Errorf("%v and %v: %v", tt.b, tt.a, got)
		}
	}
}
