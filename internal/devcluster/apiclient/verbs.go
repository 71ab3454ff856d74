package apiclient

import (
	"bytes"
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// strict makes the server reject unknown and duplicate fields instead of dropping
// them.
const strict = metav1.FieldValidationStrict

// Outcome is the result of Apply.
type Outcome string

// The results of Apply.
const (
	Created   Outcome = "created"
	Changed   Outcome = "changed"
	Unchanged Outcome = "unchanged"
)

// Apply creates the object or, if it exists, merges the given fields into it (JSON
// merge patch: lists are replaced, null removes a field). The default namespace is
// "default". Unknown fields are an error.
func (c *Client) Apply(ctx context.Context, object *unstructured.Unstructured) (Outcome, error) {
	kind := object.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset() // the definition may be newer than the cached discovery
		mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return "", err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace && object.GetNamespace() == "" {
		object = object.DeepCopy()
		object.SetNamespace("default")
	}
	resource, err := c.scoped(mapping, mapping.Resource, object.GetNamespace())
	if err != nil {
		return "", err
	}
	before, err := resource.Get(ctx, object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = resource.Create(ctx, object, metav1.CreateOptions{FieldValidation: strict})
		return Created, err
	}
	if err != nil {
		return "", err
	}
	body, err := object.MarshalJSON()
	if err != nil {
		return "", err
	}
	after, err := resource.Patch(ctx, object.GetName(), types.MergePatchType, body, metav1.PatchOptions{FieldValidation: strict})
	if err != nil {
		return "", err
	}
	if after.GetResourceVersion() == before.GetResourceVersion() {
		return Unchanged, nil
	}
	return Changed, nil
}

// Get returns the object without metadata.managedFields.
func (c *Client) Get(ctx context.Context, t Target) (*unstructured.Unstructured, error) {
	resource, err := c.open(ctx, t)
	if err != nil {
		return nil, err
	}
	object, err := resource.Get(ctx, t.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	object.SetManagedFields(nil)
	return object, nil
}

// Patch patches the object, or a subresource such as "status". A JSON object is a
// merge patch (RFC 7386), a JSON array a JSON patch (RFC 6902).
func (c *Client) Patch(ctx context.Context, t Target, patch []byte, subresource ...string) error {
	resource, err := c.open(ctx, t)
	if err != nil {
		return err
	}
	form := types.MergePatchType
	if bytes.HasPrefix(bytes.TrimSpace(patch), []byte("[")) {
		form = types.JSONPatchType
	}
	_, err = resource.Patch(ctx, t.Name, form, patch, metav1.PatchOptions{FieldValidation: strict}, subresource...)
	return err
}

// Delete deletes the object and returns its UID. Finalizers may delay the deletion
// (see WaitGone).
func (c *Client) Delete(ctx context.Context, t Target) (types.UID, error) {
	resource, err := c.open(ctx, t)
	if err != nil {
		return "", err
	}
	object, err := resource.Get(ctx, t.Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	uid := object.GetUID()
	err = resource.Delete(ctx, t.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil {
		return "", fmt.Errorf("delete %s: %w", t, err)
	}
	return uid, nil
}
