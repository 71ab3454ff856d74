// Package kube contains everything through which the programs access the API server:
// credentials, served versions, get, list, create, patch and delete of small typed
// objects, and one resumable watch.
//
// It does not depend on the meaning of a ClientMount or a data movement, nor on the
// machine. It converts API errors into texts for an administrator and leaves decisions to
// its callers.
//
// # Why there is no Reflector
//
// This package uses client-go's REST client for requests (rate limit, Retry-After, status
// errors), with its own transport and decoder. It does not use cache.Reflector. According
// to its source (v0.37.2, tools/cache/reflector.go), the Reflector lists again, instead of
// resuming, after every failure to connect other than "connection refused" and 429
// (isWatchErrorRetriable), that is after a reset, a timeout, a 503 or a TLS failure; after
// an ERROR event or an undecodable frame; and after a watch that ended within a second.
// With ten thousand nodes, each of these causes a storm of lists. The loop in watch.go
// lists only at start and when the server reports that the position has expired.
//
// The program is also smaller: with all of this package linked, a stripped program is
// 10.4 MB, while client-go's transport, codecs, kubeconfig loading and Reflector alone
// made it 11.1 MB.
//
// # No work while idle
//
// A watch is one goroutine that sleeps in a read. HTTP/2 pings are off; instead, the
// kernel's TCP keepalive and TCP_USER_TIMEOUT detect a dead connection without waking the
// process. Token and CA files are checked when a request is sent, never by a timer.
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
)

// maxRetries bounds the retries of a request after a response 429 or 5xx with Retry-After,
// or after a lost connection of a read. The time limit of the request also applies.
const maxRetries = 4

// Client accesses one API server with one account. It is safe for concurrent use and
// opens no connection before the first request.
type Client struct {
	rest   *rest.RESTClient
	o      Options
	host   string
	source string // source of the credentials, for messages
	token  *tokenTransport
	fixed  string       // the account if it does not come from a token file
	config *rest.Config // the original configuration, for As

	times timing
	limit *limiter // nil: no limit
}

// timing contains the delays and time limits of watches; tests shorten them.
type timing struct {
	retry   span          // first delay after a failure
	lost    span          // first delay after the loss of a running watch
	busy    span          // first delay after a response of a server that is not ready
	silence time.Duration // longest time without a bookmark
	grace   time.Duration // additional time for headers and for the end of a watch
}

// Resource identifies a kind of object in one version.
type Resource struct{ Group, Version, Plural, Kind string }

// String returns "plural.group/version" for messages.
func (r Resource) String() string { return r.Plural + "." + r.Group + "/" + r.Version }

// Dial checks the options and credentials and returns a Client. It sends nothing, so an
// API server that is down is not an error.
func Dial(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	return connect(o, cfg, "kubeconfig")
}

func connect(o Options, cfg *rest.Config, source string) (*Client, error) {
	quietKlog(o.Log)
	c := &Client{o: o, host: cfg.Host, source: source, config: rest.CopyConfig(cfg), times: timing{afterFailure, afterLoss, afterBusy, silence, grace}}
	cfg.UserAgent = o.UserAgent
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if cfg.Insecure {
		o.Log.Warn("the API server's certificate is not verified (insecure-skip-tls-verify in the kubeconfig)", "server", cfg.Host)
	}
	switch {
	case cfg.BearerTokenFile != "":
		c.source = "token file " + cfg.BearerTokenFile
		c.token = newTokenTransport(cfg.BearerTokenFile, o)
		cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { c.token.base = rt; return c.token })
		cfg.BearerTokenFile, cfg.BearerToken = "", ""
	case cfg.BearerToken != "":
		c.fixed = accountOfToken(cfg.BearerToken)
	case len(cfg.CertData) > 0:
		c.fixed = accountOfCert(cfg.CertData)
	case cfg.CertFile != "":
		c.source = "client certificate " + cfg.CertFile
		if data, err := readSmall(cfg.CertFile, maxCertFile); err == nil {
			c.fixed = accountOfCert(data)
		}
	}
	if o.WrapTransport != nil {
		cfg.Wrap(o.WrapTransport)
	}
	rt, err := o.Transport, error(nil)
	if rt == nil {
		rt, err = newTransport(cfg, o)
	}
	if err != nil {
		return nil, fmt.Errorf("credentials cannot be used: %w", err)
	}
	cfg.QPS, cfg.Burst = o.QPS, o.Burst
	if o.QPS > 0 {
		c.limit = newLimiter(o.QPS, o.Burst)
		cfg.RateLimiter = c.limit
	}
	cfg.ContentConfig = rest.ContentConfig{GroupVersion: &schema.GroupVersion{}, NegotiatedSerializer: statusCodec{}}
	cfg.WarningHandler = warnings{o.Log}
	// Redirects would carry the token elsewhere; the API server sends none.
	hc := &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if c.rest, err = rest.RESTClientForConfigAndClient(cfg, hc); err != nil {
		return nil, fmt.Errorf("API server address cannot be used: %w", err)
	}
	return c, nil
}

// Close closes the connections that no request uses. A program that creates many Clients needs it.
func (c *Client) Close() { utilnet.CloseIdleConnectionsFor(c.rest.Client.Transport) }

// Address returns the URL of the API server.
func (c *Client) Address() string { return c.host }

// Account returns the user name that the credentials claim, such as
// "system:serviceaccount:nnf-system:nnf-clientmount", for messages only, or "" if it is
// not known.
func (c *Client) Account() string {
	if c.token == nil {
		return c.fixed
	}
	token, err := c.token.current()
	if err != nil {
		return ""
	}
	return accountOfToken(token)
}

// Get reads one object into a pointer. It drops the managed fields.
func (c *Client) Get(ctx context.Context, r Resource, ns, name string, into any) error {
	return c.do(ctx, op{verb: "get", r: r, ns: ns, name: name, named: true}, c.rest.Get(), into)
}

// GetCached is like Get, but returns the object in the server's cache, which may be stale. The
// server need not read and decode the object: for a SystemConfiguration with 11,136 nodes, that
// takes 90 ms of its CPU, and this request takes 11 ms.
func (c *Client) GetCached(ctx context.Context, r Resource, ns, name string, into any) error {
	return c.do(ctx, op{verb: "get", r: r, ns: ns, name: name, named: true}, c.rest.Get().Param("resourceVersion", "0"), into)
}

// Create creates obj and reads the result into a pointer, unless nil.
func (c *Client) Create(ctx context.Context, r Resource, ns string, obj, into any) error {
	return c.doWith(ctx, op{verb: "create", r: r, ns: ns}, c.rest.Post(), obj, into)
}

// CreateFor creates obj as a subresource of an object, such as a token of a
// service account, and reads the result into a pointer.
func (c *Client) CreateFor(ctx context.Context, r Resource, ns, name, subresource string, obj, into any) error {
	return c.doWith(ctx, op{verb: "create", r: r, ns: ns, name: name, named: true, sub: subresource}, c.rest.Post(), obj, into)
}

// Patch patches an object or one of its subresources ("" or "status") and
// reads the result into a pointer, unless nil.
func (c *Client) Patch(ctx context.Context, r Resource, ns, name, subresource string, pt types.PatchType, body []byte, into any) error {
	return c.do(ctx, op{verb: "patch", r: r, ns: ns, name: name, named: true, sub: subresource}, c.rest.Patch(pt).Body(body), into)
}

// ApplyOptions are options of a server-side apply.
type ApplyOptions struct {
	Manager string // of the fields of the object
	Force   bool   // take over fields that another manager has set to other values
	DryRun  bool   // the server checks the request and answers, but stores nothing
}

// Apply creates an object, or gives the fields of an existing one the values that they have in obj
// (server-side apply), and reads the result into a pointer, unless nil. Unknown fields are errors.
// IsConflict is true for the error if another manager has set a field to another value.
func (c *Client) Apply(ctx context.Context, r Resource, ns, name string, obj any, o ApplyOptions, into any) error {
	body, err := json.Marshal(obj)
	if err != nil {
		return fmt.Errorf("%s cannot be encoded: %w", r.Kind, err)
	}
	req := c.rest.Patch(types.ApplyPatchType).Body(body).Param("fieldManager", o.Manager).Param("fieldValidation", "Strict")
	if o.Force {
		req.Param("force", "true")
	}
	if o.DryRun {
		req.Param("dryRun", metav1.DryRunAll)
	}
	return c.do(ctx, op{verb: "apply", r: r, ns: ns, name: name, named: true}, req, into)
}

// TryCreate reports how the server answers a request of another user to create obj. The user is a
// member of these groups. Nothing is stored. The caller must be permitted to impersonate the user
// and the groups.
func (c *Client) TryCreate(ctx context.Context, r Resource, ns string, obj any, user string, groups ...string) error {
	req := c.rest.Post().Param("dryRun", metav1.DryRunAll).SetHeader("Impersonate-User", user).SetHeader("Impersonate-Group", groups...)
	return c.doWith(ctx, op{verb: "create", r: r, ns: ns}, req, obj, nil)
}

// Delete deletes one object.
func (c *Client) Delete(ctx context.Context, r Resource, ns, name string) error {
	return c.do(ctx, op{verb: "delete", r: r, ns: ns, name: name, named: true}, c.rest.Delete(), nil)
}

// DeleteObject deletes one object if it has that UID. If another object has the name now,
// IsConflict is true for the error.
func (c *Client) DeleteObject(ctx context.Context, r Resource, ns, name string, uid types.UID) error {
	options := metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &uid},
	}
	return c.doWith(ctx, op{verb: "delete", r: r, ns: ns, name: name, named: true}, c.rest.Delete(), options, nil)
}

// doWith is do with a body.
func (c *Client) doWith(ctx context.Context, what op, req *rest.Request, obj, into any) error {
	body, err := json.Marshal(obj)
	if err != nil {
		return fmt.Errorf("%s cannot be encoded: %w", what.r.Kind, err)
	}
	return c.do(ctx, what, req.Body(body).SetHeader("Content-Type", "application/json"), into)
}

// do sends a request for one object and reads the response into a pointer, unless nil.
func (c *Client) do(ctx context.Context, what op, req *rest.Request, into any) error {
	path, err := what.path()
	if err != nil {
		return err
	}
	if err := c.send(ctx, what, req.AbsPath(path).MaxRetries(maxRetries), into); err != nil {
		return err
	}
	if m, ok := into.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return nil
}

// send sends one request within the time limit and decodes the response into a pointer,
// unless nil.
func (c *Client) send(ctx context.Context, what op, req *rest.Request, into any) error {
	ctx, err := c.admit(ctx)
	if err != nil {
		return c.explain(ctx, what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	res := req.Do(ctx)
	if err := res.Error(); err != nil { // unlike the error of Raw, it contains the Status
		return c.explain(ctx, what, err)
	}
	if into == nil {
		return nil
	}
	data, err := res.Raw()
	if err != nil {
		return c.explain(ctx, what, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: cannot decode the response of the API server: %w", what, err)
	}
	return nil
}

// RetryRate returns the maximum number of requests per second for retries, or 0 if there
// is no limit.
func (c *Client) RetryRate() float64 {
	if c.limit == nil {
		return 0
	}
	return float64(c.limit.retries.Limit())
}

// admit waits until a request with a priority may be sent. It waits before the time limit
// of the request starts, because a long queue does not mean that the server does not
// respond. Requests without a priority wait within their time limit.
func (c *Client) admit(ctx context.Context) (context.Context, error) {
	r := requestOf(ctx)
	if r == nil || r.priority == nil {
		Sending(ctx)
		return ctx, nil
	}
	if c.limit != nil {
		if err := c.limit.Wait(ctx); err != nil {
			return ctx, err
		}
	}
	Sending(ctx)
	return withRequest(ctx, func(r *request) {
		r.sent, r.granted = nil, new(atomic.Bool)
		r.granted.Store(true)
	}), nil
}

// seconds formats a timeout for the API server.
func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// op is one request; it provides the text for messages and the path.
type op struct {
	verb     string
	r        Resource
	ns, name string
	named    bool // about one object, not the collection
	sub      string
}

// path returns the path of the request. Names come from labels of objects that other
// programs write, so a name that could leave its path segment is an error.
func (o op) path() (string, error) {
	segments := []string{"apis", o.r.Group, o.r.Version}
	if o.r.Group == "" {
		segments = []string{"api", o.r.Version}
	}
	if o.ns != "" {
		segments = append(segments, "namespaces", o.ns)
	}
	segments = append(segments, o.r.Plural)
	if o.named {
		segments = append(segments, o.name)
	}
	if o.sub != "" {
		segments = append(segments, o.sub)
	}
	for _, s := range segments {
		if bad := rest.IsValidPathSegmentName(s); s == "" || len(bad) > 0 || strings.ContainsAny(s, "?#\\") || printable(s) != s {
			return "", fmt.Errorf("%s: %q is not a valid name of an object, namespace or resource", o, s)
		}
	}
	return "/" + strings.Join(segments, "/"), nil
}

// resource returns "clientmounts.dataworkflowservices.github.io/status", the
// form that RBAC rules and kubectl auth can-i use.
func (o op) resource() string {
	s := o.r.Plural
	if o.r.Group != "" {
		s += "." + o.r.Group
	}
	if o.sub != "" {
		s += "/" + o.sub
	}
	return s
}

// String returns "get ClientMount rabbit1/job7".
func (o op) String() string {
	what := o.r.Kind
	if o.sub != "" {
		what += " " + o.sub
	}
	switch {
	case o.name != "" && o.ns != "":
		return fmt.Sprintf("%s %s %q", o.verb, what, o.ns+"/"+o.name)
	case o.name != "":
		return fmt.Sprintf("%s %s %q", o.verb, what, o.name)
	case o.ns != "":
		return fmt.Sprintf("%s %s in namespace %q", o.verb, what, o.ns)
	}
	return o.verb + " " + what
}

// statusCodec is the codec for client-go's REST client: it decodes the Status object of a
// failed request. This package decodes all other objects, so the codecs for YAML, protobuf
// and CBOR are not linked.
type statusCodec struct{}

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (s statusCodec) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{
		MediaType: runtime.ContentTypeJSON, MediaTypeType: "application", MediaTypeSubType: "json",
		EncodesAsText: true, Serializer: s,
	}}
}

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (s statusCodec) EncoderForVersion(e runtime.Encoder, _ runtime.GroupVersioner) runtime.Encoder {
	return e
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (s statusCodec) DecoderToVersion(d runtime.Decoder, _ runtime.GroupVersioner) runtime.Decoder {
	return d
}

// Decode implements runtime.Decoder for Status objects only.
func (s statusCodec) Decode(data []byte, _ *schema.GroupVersionKind, _ runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	st, err := decodeStatus(data)
	if err != nil {
		return nil, nil, err
	}
	return st, &schema.GroupVersionKind{Version: "v1", Kind: "Status"}, nil
}

// Encode implements runtime.Encoder; nothing is encoded through it.
func (s statusCodec) Encode(runtime.Object, io.Writer) error {
	return errors.New("kube: this codec only reads status objects")
}

// Identifier implements runtime.Encoder.
func (s statusCodec) Identifier() runtime.Identifier { return "status" }

func decodeStatus(data []byte) (*metav1.Status, error) {
	st := new(metav1.Status)
	if err := json.Unmarshal(data, st); err != nil {
		return nil, err
	}
	if st.Kind != "Status" {
		return nil, errors.New("not a Status object")
	}
	return st, nil
}
