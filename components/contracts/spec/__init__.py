"""The workload spec: one YAML file that describes one teacher, one task, one label space, one student lineage.

Every section is a frozen struct; unknown fields and values out of range are refused with the field's path.
A reference ``module:name`` or ``file.py:name`` (relative to the spec file) names a Python object of the user's.
"""

from components.contracts.spec.declared import About, Data, TeacherFactory, TeacherLicence, Terms
from components.contracts.spec.features import Entity, EntityFeature, Features
from components.contracts.spec.fields import Count, Factory, Name, Payload, Positive, Section, Share, class_names
from components.contracts.spec.label import Admission, Budget, Consent, Label, Policy, Probe
from components.contracts.spec.limits import GAPS, Disturbance, Extraction, Groups, Limits, extracted
from components.contracts.spec.masking import Masking
from components.contracts.spec.monitor import Monitor, Trigger
from components.contracts.spec.privacy import Privacy, PrivacyUnit
from components.contracts.spec.references import build, located, placed, resolve
from components.contracts.spec.retention import DAY, Retention
from components.contracts.spec.rollout import RolloutPolicy, Step, check_steps
from components.contracts.spec.serve import Deferral, DeferTo, Serve
from components.contracts.spec.student import Begin, Export, Form, Pruning, Student, Variant, check_export
from components.contracts.spec.workload import Kind, Spec, load_spec

__all__ = [
    "DAY",
    "GAPS",
    "About",
    "Admission",
    "Begin",
    "Budget",
    "Consent",
    "Count",
    "Data",
    "DeferTo",
    "Deferral",
    "Disturbance",
    "Entity",
    "EntityFeature",
    "Export",
    "Extraction",
    "Factory",
    "Features",
    "Form",
    "Groups",
    "Kind",
    "Label",
    "Limits",
    "Masking",
    "Monitor",
    "Name",
    "Payload",
    "Policy",
    "Positive",
    "Privacy",
    "PrivacyUnit",
    "Probe",
    "Pruning",
    "Retention",
    "RolloutPolicy",
    "Section",
    "Serve",
    "Share",
    "Spec",
    "Step",
    "Student",
    "TeacherFactory",
    "TeacherLicence",
    "Terms",
    "Trigger",
    "Variant",
    "build",
    "check_export",
    "check_steps",
    "class_names",
    "extracted",
    "load_spec",
    "located",
    "placed",
    "resolve",
]
