package credentials

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// fromTokenRequest requests a token that expires after r.Lifetime. If the cluster has a
// Node r.Node, the token also becomes invalid when that Node is deleted.
func fromTokenRequest(ctx context.Context, admin *kube.Client, r Request) (*Credentials, error) {
	if r.Lifetime < MinLifetime {
		return nil, fmt.Errorf("the lifetime of a token must be at least %v, not %v", MinLifetime, r.Lifetime)
	}
	c := &Credentials{Account: r.Account, Bound: true, Source: "TokenRequest for " + r.Account.String()}
	request := kube.NewTokenRequest(r.Lifetime)
	if r.Node != "" {
		var n struct {
			metav1.ObjectMeta `json:"metadata"`
		}
		switch err := admin.Get(ctx, nodes, "", r.Node, &n); {
		case apierrors.IsNotFound(err): // or the API server does not serve Nodes
			c.note(fmt.Sprintf("the cluster has no Node %q, as is usual for compute nodes: the token works on every node until it expires", r.Node))
		case err != nil:
			return nil, err
		default:
			request.Spec.Bound, c.Node = &kube.ObjectRef{APIVersion: "v1", Kind: "Node", Name: r.Node, UID: string(n.UID)}, r.Node
		}
	}
	created, err := create(ctx, admin, r, request)
	if err != nil && request.Spec.Bound != nil && kube.IsInvalid(err) {
		c.note("this API server does not bind tokens to nodes (Kubernetes 1.31 and later do): the token works on every node until it expires")
		request.Spec.Bound, c.Node = nil, ""
		created, err = create(ctx, admin, r, request)
	}
	if kube.IsNotFound(err) {
		if r.Own != nil {
			return nil, noAccount(&r)
		}
		return nil, missingError(ctx, admin, r)
	}
	if err != nil {
		return nil, err
	}
	c.Token, c.Expires = created.Status.Token, created.Status.Expires.Time
	if got := time.Until(c.Expires); got < r.Lifetime-time.Minute && r.Lifetime-got > r.Lifetime/20 {
		c.note(fmt.Sprintf("the API server granted a lifetime of %v instead of %v", got.Round(time.Minute), r.Lifetime))
	}
	if c.CA = r.CA; len(c.CA) == 0 {
		c.CA, err = Authority(ctx, admin, r.Account.Namespace)
	}
	return c, err
}

func create(ctx context.Context, admin *kube.Client, r Request, request kube.TokenRequest) (created kube.TokenRequest, err error) {
	err = admin.CreateFor(ctx, accounts, r.Account.Namespace, r.Account.Name, "token", request, &created)
	if err == nil && created.Status.Token == "" {
		err = errors.New("the API server returned no token for " + r.Account.String())
	}
	return created, err
}

// Authority returns the CA that the cluster publishes in every namespace, or otherwise the
// one in the kubeconfig.
func Authority(ctx context.Context, admin *kube.Client, namespace string) ([]byte, error) {
	const published = "kube-root-ca.crt"
	var m struct {
		metav1.ObjectMeta `json:"metadata"`
		Data              map[string]string `json:"data"`
	}
	err := admin.Get(ctx, configMaps, namespace, published, &m)
	ca := []byte(m.Data["ca.crt"])
	if err == nil {
		err = checkCA(ca)
	}
	if err == nil {
		return ca, nil
	}
	ca, kerr := admin.Authority()
	if kerr == nil {
		kerr = checkCA(ca)
	}
	if kerr == nil {
		return ca, nil
	}
	return nil, fmt.Errorf("cannot find the CA of the API server: ConfigMap %s/%s: %w; kubeconfig: %w", namespace, published, err, kerr)
}
