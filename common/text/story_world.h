// The state of a story: who plays which role, who is where, what was said. Chapter 1.
//
// A role is a variable of the story. The first sentence that mentions it draws a word for it (from the words
// that are possible in the state), and from then on it is bound: every later mention must be that word. So
// most facts of a story need no code at all; the few rules are in World::possible.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "common/text/story_lexicon.h"

namespace llm {

enum Role : std::uint8_t {
  kHero,    // who wants something
  kFriend,  // who has it, or helps: an animal if the hero is a child, a child if the hero is an animal
  kTrait,   // what the hero is like
  kWeather,
  kDaytime,
  kHome,      // where the story begins
  kThere,     // where the friend is, or where the friend said the thing is
  kGoal,      // where at home the hero looks instead
  kStore,     // where the hero finds something to give for it
  kMove,      // how somebody goes; drawn anew each time
  kColour,    // of the thing
  kThing,     // what the hero wants
  kUse,       // why
  kOtherUse,  // why the friend wants to keep it
  kVow,       // what the hero promises to do with joy
  kDare,      // what the friend asks the hero to do
  kDone,      // what the hero does instead
  kGift,      // the thing that the friend asks for in return
  kBrought,   // what the hero brings instead
  kJunk,      // what lies about; drawn anew each time
  kSpot,      // where the thing is stuck
  kTool,      // what helps there
  kGlad,
  kSad,
  kRoleCount
};

struct RoleInfo {
  std::string_view name;  ///< As sentences write it: {hero}.
  Kind kind;
  bool bind;                      ///< Whether a mention binds the role.
  std::string_view not_bound_so;  ///< What to say when a mention differs from the bound word, {found}.
  std::string_view impossible;    ///< What to say when the first mention is a word that is not possible.
};

const RoleInfo& role_info(Role role);

struct World {
  std::array<std::int8_t, kRoleCount> word;  ///< The row of each role's word in its table, -1 while unbound.

  World() { word.fill(-1); }
  bool knows(Role role) const { return word[role] >= 0; }
  int operator[](Role role) const { return word[role]; }
  /// The role's word in one of its forms; "somebody" and the like while it is unbound.
  std::string_view form(Role role, std::size_t column = 0) const;
  /// The words that a mention of the role may be, now. Each is as likely as the others.
  Words possible(Role role) const;
};

}  // namespace llm
