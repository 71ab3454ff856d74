package kube

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// The resources through which an account asks about itself.
var (
	selfReviews   = Resource{Group: "authentication.k8s.io", Version: "v1", Plural: "selfsubjectreviews", Kind: "SelfSubjectReview"}
	accessReviews = Resource{Group: "authorization.k8s.io", Version: "v1", Plural: "selfsubjectaccessreviews", Kind: "SelfSubjectAccessReview"}
)

// WhoAmI returns the user name of the credentials as the API server reports it, or "" if the
// server does not support this request, which Kubernetes has since 1.28.
func (c *Client) WhoAmI(ctx context.Context) (string, error) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Status     struct {
			User struct {
				Name string `json:"username"`
			} `json:"userInfo"`
		} `json:"status,omitzero"`
	}
	review.APIVersion, review.Kind = selfReviews.Group+"/"+selfReviews.Version, selfReviews.Kind
	err := c.Create(ctx, selfReviews, "", review, &review)
	if apierrors.IsNotFound(err) || IsForbidden(err) {
		return "", nil
	}
	return review.Status.User.Name, err
}

// maxReviews is the number of permissions that are checked concurrently.
const maxReviews = 8

// Allowed reports, for each permission, whether the account has it.
func (c *Client) Allowed(ctx context.Context, list []api.Permission) ([]bool, error) {
	allowed, errs := make([]bool, len(list)), make([]error, len(list))
	var group sync.WaitGroup
	slots := make(chan struct{}, maxReviews)
	for i, p := range list {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			allowed[i], errs[i] = c.isAllowed(ctx, p)
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return allowed, nil
}

func (c *Client) isAllowed(ctx context.Context, p api.Permission) (bool, error) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Attributes struct {
				Namespace   string `json:"namespace,omitempty"`
				Verb        string `json:"verb"`
				Group       string `json:"group"`
				Resource    string `json:"resource"`
				Subresource string `json:"subresource,omitempty"`
				Name        string `json:"name,omitempty"`
			} `json:"resourceAttributes"`
		} `json:"spec"`
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status,omitzero"`
	}
	review.APIVersion, review.Kind = accessReviews.Group+"/"+accessReviews.Version, accessReviews.Kind
	at := &review.Spec.Attributes
	at.Namespace, at.Verb, at.Group, at.Resource, at.Subresource, at.Name = p.Namespace, p.Verb, p.Group, p.Resource, p.Subresource, p.Name
	err := c.Create(ctx, accessReviews, "", review, &review)
	return review.Status.Allowed, err
}
