package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// Client is a client of an API server with plain HTTP and JSON maps. It is independent
// of the client of the daemons, which it tests.
type Client struct {
	base  string
	token string
	ca    []byte
	http  *http.Client
	user  string // to impersonate; empty: none
}

// As returns a client that impersonates a user.
func (c *Client) As(user string) *Client {
	other := *c
	other.user = user
	return &other
}

// NewClient returns a client from a kubeconfig.
func NewClient(path string) (*Client, error) {
	server, token, ca, config, err := credentials(path)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	return &Client{base: server, token: token, ca: ca, http: &http.Client{Transport: transport}}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is a response other than success.
type StatusError struct {
	Code    int
	Reason  string
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d %s: %s", e.Code, e.Reason, e.Message) }

// IsNotFound reports whether err is a response with status 404.
func IsNotFound(err error) bool {
	status := (*StatusError)(nil)
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

type kind struct{ root, resource string }

var kinds = map[string]kind{
	"Namespace":                 {"/api/v1", ""},
	"Secret":                    {"/api/v1", "secrets"},
	"ServiceAccount":            {"/api/v1", "serviceaccounts"},
	"ClusterRole":               {rbac, "clusterroles"},
	"ClusterRoleBinding":        {rbac, "clusterrolebindings"},
	"RoleBinding":               {rbac, "rolebindings"},
	"ValidatingAdmissionPolicy": {admission, "validatingadmissionpolicies"},

	"ValidatingAdmissionPolicyBinding": {admission, "validatingadmissionpolicybindings"},

	"FlowSchema":                 {flow, "flowschemas"},
	"PriorityLevelConfiguration": {flow, "prioritylevelconfigurations"},
	"ClientMount":                {dws, "clientmounts"},
	"Workflow":                   {dws, "workflows"},
	"SystemConfiguration":        {dws, "systemconfigurations"},
	"Servers":                    {dws, "servers"},
	"NnfStorage":                 {nnf, "nnfstorages"},
	"NnfStorageProfile":          {nnf, "nnfstorageprofiles"},
	"NnfDataMovement":            {nnf, "nnfdatamovements"},
	"NnfDataMovementProfile":     {nnf, "nnfdatamovementprofiles"},
	"LustreFileSystem":           {"/apis/" + api.GroupLUS + "/v1beta1", "lustrefilesystems"},
}

const (
	flow      = "/apis/flowcontrol.apiserver.k8s.io/v1"
	rbac      = "/apis/rbac.authorization.k8s.io/v1"
	admission = "/apis/admissionregistration.k8s.io/v1"
)

var (
	dws = "/apis/" + api.GroupDWS + "/" + api.VersionsDWS[0]
	nnf = "/apis/" + api.GroupNNF + "/" + api.VersionsNNF[0]
)

// Path returns the URL path of an object. If name is empty, it is the path of the
// collection; if ns is empty, of a cluster-scoped object.
func Path(kindName, ns, name string) string {
	k, ok := kinds[kindName]
	if !ok {
		return "/no-such-kind/" + kindName
	}
	p := k.root
	if kindName == "Namespace" {
		p += "/namespaces"
	} else if ns != "" {
		p += "/namespaces/" + ns
	}
	if k.resource != "" {
		p += "/" + k.resource
	}
	if name != "" {
		p += "/" + name
	}
	return p
}

// Do sends a request and returns the object in the response.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body []byte) (Object, error) {
	resp, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	var o Object
	err = json.Unmarshal(data, &o)
	if resp.StatusCode >= 300 {
		return nil, &StatusError{resp.StatusCode, o.String("reason"), o.String("message")}
	}
	return o, err
}

// Read writes the body of a response to w and returns its size: for text, and for lists that
// need not be decoded.
func (c *Client) Read(ctx context.Context, path string, w io.Writer) (int64, error) {
	resp, err := c.send(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return 0, &StatusError{resp.StatusCode, resp.Status, ""}
	}
	return io.Copy(w, resp.Body)
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.user != "" {
		req.Header.Set("Impersonate-User", c.user)
	}
	return c.http.Do(req)
}

const mergePatch = "application/merge-patch+json"

// Get returns an object.
func (c *Client) Get(ctx context.Context, kind, ns, name string) (Object, error) {
	return c.Do(ctx, http.MethodGet, Path(kind, ns, name), "", nil)
}

// Create creates an object.
func (c *Client) Create(ctx context.Context, o Object) (Object, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, http.MethodPost, Path(o.String("kind"), o.Namespace(), ""), "application/json", body)
}

// Apply creates an object or, if it exists, merges o into it.
func (c *Client) Apply(ctx context.Context, o Object) (Object, error) {
	made, err := c.Create(ctx, o)
	if status := (*StatusError)(nil); errors.As(err, &status) && status.Code == http.StatusConflict {
		return c.Patch(ctx, o.String("kind"), o.Namespace(), o.Name(), o)
	}
	return made, err
}

// Patch merges changes into an object.
func (c *Client) Patch(ctx context.Context, kind, ns, name string, change Object) (Object, error) {
	return c.PatchPath(ctx, Path(kind, ns, name), mergePatch, change)
}

// PatchStatus merges changes into the status of an object.
func (c *Client) PatchStatus(ctx context.Context, kind, ns, name string, status any) error {
	_, err := c.PatchPath(ctx, Path(kind, ns, name)+"/status", mergePatch, Object{"status": status})
	return err
}

// DropFinalizers removes the finalizers of an object, so that nothing delays its
// deletion.
func (c *Client) DropFinalizers(ctx context.Context, kind, ns, name string) error {
	_, err := c.Patch(ctx, kind, ns, name, Object{"metadata": Object{"finalizers": nil}})
	return err
}

// PatchPath patches any path, for example that of another version of an object.
func (c *Client) PatchPath(ctx context.Context, path, contentType string, change any) (Object, error) {
	body, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, http.MethodPatch, path, contentType, body)
}

// Delete deletes an object. Finalizers may delay the deletion.
func (c *Client) Delete(ctx context.Context, kind, ns, name string) error {
	_, err := c.Do(ctx, http.MethodDelete, Path(kind, ns, name), "", nil)
	return err
}

// kubeconfig has the relevant fields of the file: one server, and one user with a
// client certificate or a token.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server string `json:"server"`
			CA     string `json:"certificate-authority-data"`
			CAFile string `json:"certificate-authority"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Cert  string `json:"client-certificate-data"`
			Key   string `json:"client-key-data"`
			Token string `json:"token"`
		} `json:"user"`
	} `json:"users"`
}

// credentials reads a kubeconfig.
func credentials(path string) (server, token string, ca []byte, config *tls.Config, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", "", nil, nil, err
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		return "", "", nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(k.Clusters) == 0 || len(k.Users) == 0 {
		return "", "", nil, nil, fmt.Errorf("%s has no cluster or no user", path)
	}
	cluster, user := k.Clusters[0].Cluster, k.Users[0].User
	if cluster.CAFile != "" {
		ca, err = os.ReadFile(cluster.CAFile)
	} else {
		ca, err = base64.StdEncoding.DecodeString(cluster.CA)
	}
	if err != nil {
		return "", "", nil, nil, fmt.Errorf("%s: certificate authority: %w", path, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return "", "", nil, nil, fmt.Errorf("%s: no certificate authority", path)
	}
	config = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if user.Cert != "" {
		cert, e1 := base64.StdEncoding.DecodeString(user.Cert)
		key, e2 := base64.StdEncoding.DecodeString(user.Key)
		pair, e3 := tls.X509KeyPair(cert, key)
		if err := errors.Join(e1, e2, e3); err != nil {
			return "", "", nil, nil, fmt.Errorf("%s: client certificate: %w", path, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return cluster.Server, user.Token, ca, config, nil
}
