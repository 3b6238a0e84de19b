#include "ch05_pretraining/pretraining.h"
namespace llm::ch05 { void walk(const WalkCommand&) {} }
