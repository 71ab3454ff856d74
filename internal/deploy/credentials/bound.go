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

// tokenRequest is a TokenRequest.
type tokenRequest struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Spec       tokenRequestSpec `json:"spec"`
	Status     struct {
		Token   string      `json:"token"`
		Expires metav1.Time `json:"expirationTimestamp"`
	} `json:"status,omitzero"`
}

type tokenRequestSpec struct {
	Seconds int64      `json:"expirationSeconds"`
	Bound   *objectRef `json:"boundObjectRef,omitempty"`
}

type objectRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// requested gets a token that expires, or is invalid as soon as the cluster has lost the
// node.
func requested(ctx context.Context, admin *kube.Client, r Request) (*Credentials, error) {
	if r.Lifetime < MinLifetime {
		return nil, fmt.Errorf("a token lives %v or longer, not %v", MinLifetime, r.Lifetime)
	}
	c := &Credentials{Account: r.Account, Bound: true, Source: "TokenRequest for " + r.Account.String()}
	ask := tokenRequest{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest", Spec: tokenRequestSpec{Seconds: int64(r.Lifetime / time.Second)}}
	if r.Node != "" {
		var n struct {
			metav1.ObjectMeta `json:"metadata"`
		}
		switch err := admin.Get(ctx, nodes, "", r.Node, &n); {
		case apierrors.IsNotFound(err): // or the API server has no nodes at all
			c.note(fmt.Sprintf("the cluster has no Node %q, as is usual for computes: the token ends by its time alone, and works on every node", r.Node))
		case err != nil:
			return nil, err
		default:
			ask.Spec.Bound, c.Node = &objectRef{"v1", "Node", r.Node, string(n.UID)}, r.Node
		}
	}
	made, err := create(ctx, admin, r, ask)
	if err != nil && ask.Spec.Bound != nil && kube.IsInvalid(err) {
		c.note("this API server does not bind tokens to nodes (Kubernetes 1.31 and later do): the token ends by its time alone, and works on every node")
		ask.Spec.Bound, c.Node = nil, ""
		made, err = create(ctx, admin, r, ask)
	}
	if kube.IsNotFound(err) {
		return nil, absent(ctx, admin, r)
	}
	if err != nil {
		return nil, err
	}
	c.Token, c.Expires = made.Status.Token, made.Status.Expires.Time
	if got := time.Until(c.Expires); got < r.Lifetime-time.Minute && r.Lifetime-got > r.Lifetime/20 {
		c.note(fmt.Sprintf("the API server grants %v at most, not %v", got.Round(time.Minute), r.Lifetime))
	}
	if c.CA, err = authority(ctx, admin, r.Account.Namespace); err != nil {
		return nil, err
	}
	return c, nil
}

func create(ctx context.Context, admin *kube.Client, r Request, ask tokenRequest) (made tokenRequest, err error) {
	err = admin.CreateFor(ctx, accounts, r.Account.Namespace, r.Account.Name, "token", ask, &made)
	if err == nil && made.Status.Token == "" {
		err = errors.New("the API server made no token for " + r.Account.String())
	}
	return made, err
}

// authority returns the CA that the cluster publishes in every namespace, or else that of
// the kubeconfig.
func authority(ctx context.Context, admin *kube.Client, namespace string) ([]byte, error) {
	const published = "kube-root-ca.crt"
	var m struct {
		metav1.ObjectMeta `json:"metadata"`
		Data              map[string]string `json:"data"`
	}
	err := admin.Get(ctx, configMaps, namespace, published, &m)
	if ca := []byte(m.Data["ca.crt"]); err == nil && checkCA(ca) == nil {
		return ca, nil
	}
	ca, kerr := admin.Authority()
	if kerr == nil && checkCA(ca) == nil {
		return ca, nil
	}
	return nil, fmt.Errorf("the CA of the API server is not known: neither ConfigMap %s/%s nor the kubeconfig has it (%w)", namespace, published, errors.Join(err, kerr))
}
