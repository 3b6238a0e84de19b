// Which words are possible for a role, given the state of the story; and what to say when a text takes
// another.
#include "common/text/story_world.h"

namespace llm {
namespace {

constexpr std::array<RoleInfo, kRoleCount> kRoles = {{
    {"hero", Kind::kName, true, "this is the story of {hero}, but here it says {found}", ""},
    {"friend", Kind::kName, true, "the other one in this story is {friend}, but here it says {found}",
     "{found} cannot be the other one: a child deals with an animal here, and an animal with a child"},
    {"trait", Kind::kTrait, true, "{hero} is {trait}, not {found}", ""},
    {"weather", Kind::kWeather, true, "it is a {weather} {daytime}, not a {found} one", ""},
    {"daytime", Kind::kDaytime, true, "all this happens in one {daytime}, but here it says {found}", ""},
    {"home", Kind::kPlace, true, "", "no story begins {found.at}"},
    {"there", Kind::kPlace, true, "this should be the {there}, not the {found}",
     "{friend} lives elsewhere, not {found.at}"},
    {"goal", Kind::kPlace, true, "{hero} went to the {goal}, not to the {found}", ""},
    {"store", Kind::kPlace, true, "", "{hero} looks for a {gift} at home, not {found.at}"},
    {"move", Kind::kMove, false, "", ""},
    {"colour", Kind::kColour, true, "the {thing} is {colour}, not {found}", ""},
    {"thing", Kind::kThing, true, "{hero} wants the {thing}, but here the story has the {found}", ""},
    {"use", Kind::kUse, true, "{hero} wants the {thing} to {use}, not to {found}",
     "nobody needs the {thing} to {found}"},
    {"other_use", Kind::kUse, true, "{friend} needs the {thing} to {other_use}, not to {found}",
     "{friend} does not need the {thing} to {found}"},
    {"vow", Kind::kDeed, true, "{hero} promised to {vow}, not to {found}", ""},
    {"dare", Kind::kDeed, true, "{friend} asked {hero} to {dare}, not to {found}",
     "{hero} means to {vow} anyway, so {friend} cannot ask for that"},
    {"done", Kind::kDeed, true, "what {hero} did was to {done}, not to {found}",
     "to {found} is no mistake here"},
    {"gift", Kind::kThing, true, "{friend} asked for a {gift}, not for a {found}",
     "{friend} has the {thing}, and does not ask for a {found}"},
    {"brought", Kind::kThing, true, "{hero} brought a {brought}, not a {found}",
     "what {hero} brings in vain is neither the {thing} nor a {gift}, so it cannot be a {found}"},
    {"junk", Kind::kJunk, false, "", ""},
    {"spot", Kind::kSpot, true, "the {thing} is stuck {spot}, not {found}", ""},
    {"tool", Kind::kTool, true, "what helps there is a {tool}, not a {found}",
     "a {found} does not help with {spot.the}"},
    {"glad", Kind::kGlad, true, "", ""},
    {"sad", Kind::kSad, true, "", ""},
}};

}  // namespace

const RoleInfo& role_info(Role role) {
  return kRoles[role];
}

std::string_view World::form(Role role, std::size_t column) const {
  if (!knows(role)) return "something";
  return lexicon(kRoles[role].kind).rows[static_cast<std::size_t>(word[role])][column];
}

Words World::possible(Role role) const {
  if (knows(role)) return only(word[role]);
  const Words all = every(kRoles[role].kind);
  // A role that is not bound yet takes no word away.
  const auto known = [&](Role other) { return knows(other) ? only(word[other]) : 0; };
  Words words = all;
  switch (role) {
    case kFriend:
      if (knows(kHero)) words = (known(kHero) & kChildren) != 0 ? all & ~kChildren : kChildren;
      return knows(kThere) ? words & living_at(word[kThere]) : words;
    case kHome:
    case kGoal:
    case kStore:
      return kHomes;
    case kThere:
      return knows(kFriend) ? only(place_of(word[kFriend])) : all & ~kHomes;
    case kUse:
      return knows(kThing) ? uses_of(word[kThing]) : all;
    case kOtherUse:
      return (knows(kThing) ? uses_of(word[kThing]) : all) & ~known(kUse);
    case kDare:
      return all & ~known(kVow);
    case kDone:
      return all & ~known(kVow) & ~known(kDare);
    case kGift:
      return all & ~known(kThing);
    case kBrought:
      return all & ~known(kThing) & ~known(kGift);
    case kTool:
      return knows(kSpot) ? only(word[kSpot]) : all;
    default:
      return all;
  }
}

}  // namespace llm
