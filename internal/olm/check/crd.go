package check

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/countersign-dev/countersign/internal/olm"
)

// compiledCRD is a decoded CRD with its compiled schemas, and the errors of its validation.
type compiledCRD struct {
	object   apiextensionsv1.CustomResourceDefinition
	errs     []error
	versions map[string]*compiledSchema // versions with a valid schema
}

// compiledSchema validates objects of one version.
type compiledSchema struct {
	structural *structuralschema.Structural
	fields     validation.SchemaValidator
	rules      *cel.Validator
	refused    map[string][]error // errors of the rules, by the version of the API server
}

// compile decodes a CRD, and validates it as an API server does. Errors are in errs.
func compile(text []byte) *compiledCRD {
	c := &compiledCRD{versions: map[string]*compiledSchema{}}
	if err := olm.Decode(text, &c.object); err != nil {
		c.errs = append(c.errs, err)
		return c
	}
	crd := c.object.DeepCopy()
	apiextensionsv1.SetDefaults_CustomResourceDefinition(crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			crd.Status.StoredVersions = []string{v.Name} // An API server sets this.
		}
		c.addVersion(v)
	}
	internal := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(crd,
		internal, nil); err != nil {
		c.errs = append(c.errs, err)
		return c
	}
	for _, err := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), internal) {
		c.errs = append(c.errs, err)
	}
	return c
}

func (c *compiledCRD) addVersion(v apiextensionsv1.CustomResourceDefinitionVersion) {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		c.errs = append(c.errs, fmt.Errorf("there is no schema for %s", v.Name))
		return
	}
	if _, ok := v.Schema.OpenAPIV3Schema.Properties["spec"]; !ok {
		c.errs = append(c.errs, fmt.Errorf("there is no schema for the spec of %s", v.Name))
	}
	s, err := compileSchema(v.Schema.OpenAPIV3Schema)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("the schema of %s: %w", v.Name, err))
		return
	}
	c.versions[v.Name] = s
}

func compileSchema(s *apiextensionsv1.JSONSchemaProps) (*compiledSchema, error) {
	internal := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(s, internal,
		nil); err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(internal)
	if err != nil {
		return nil, err
	}
	fields, _, err := validation.NewSchemaValidator(internal)
	if err != nil {
		return nil, err
	}
	return &compiledSchema{
		structural, fields, cel.NewValidator(structural, true, celconfig.PerCallLimit), map[string][]error{},
	}, nil
}

// schema returns the schema of a served version; nil: none.
func (c *compiledCRD) schema(version string) *apiextensionsv1.JSONSchemaProps {
	for _, v := range c.object.Spec.Versions {
		if v.Name == version && v.Served && v.Schema != nil {
			return v.Schema.OpenAPIV3Schema
		}
	}
	return nil
}

// valid validates an object as an API server does: unknown fields, the schema, and its CEL rules.
func (c *compiledCRD) valid(o unstructured.Unstructured) error {
	s, ok := c.versions[o.GroupVersionKind().Version]
	if !ok {
		return errors.New("the schema of its kind is not valid")
	}
	object := o.DeepCopy().Object
	if unknown := pruning.PruneWithOptions(object, s.structural, true,
		structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}); len(unknown) > 0 {
		return fmt.Errorf("unknown fields: %s", list(unknown))
	}
	defaulting.Default(object, s.structural)
	errs := validation.ValidateCustomResource(nil, object, s.fields)
	if s.rules != nil {
		more, _ := s.rules.Validate(context.Background(), nil, s.structural, object, nil,
			celconfig.RuntimeCELCostBudget)
		errs = append(errs, more...)
	}
	return errs.ToAggregate()
}
